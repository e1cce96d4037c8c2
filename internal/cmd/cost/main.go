package main

import (
	"context"
	_ "embed" // for the price list and the measures
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// measureLimit bounds a measurement: some thousand calls, and the build of the functions.
const measureLimit = 9 * time.Minute

//go:embed prices.json
var pricesJSON []byte

//go:embed measures.json
var measuresJSON []byte

func main() {
	measures := flag.Bool("measure", false, "measure this checkout first, and write measures.json")
	root := flag.String("root", ".", "the checkout")
	dev := flag.String("dev", "", "the template of a dev stack, with -measure")
	prod := flag.String("prod", "", "the template of a prod stack, with -measure")
	flag.Parse()
	if err := run(*measures, *root, *dev, *prod); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(measures bool, root, dev, prod string) error {
	list, m, err := embedded()
	if err != nil {
		return err
	}
	if measures {
		ctx, cancel := context.WithTimeout(context.Background(), measureLimit)
		defer cancel()
		if m, err = measure(ctx, root, dev, prod); err != nil {
			return fmt.Errorf("measure: %w", err)
		}
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return err
		}
		if err := write(root+"/internal/cmd/cost/measures.json", string(text)+"\n"); err != nil {
			return err
		}
	}
	return write(root+"/infra/COST.md", page(list, m))
}

// embedded returns the price list and the measures that this program was built with.
func embedded() (list prices, m measured, err error) {
	if err := json.Unmarshal(pricesJSON, &list); err != nil {
		return list, m, fmt.Errorf("prices.json: %w", err)
	}
	if err := json.Unmarshal(measuresJSON, &m); err != nil {
		return list, m, fmt.Errorf("measures.json: %w", err)
	}
	return list, m, nil
}

func write(path, text string) error {
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // a page of the checkout
}
