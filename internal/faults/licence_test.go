package faults

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/local/builttest"
)

// licences names each licence by a phrase that only it has. The order matters where one text quotes
// another.
var licences = []struct{ phrase, name string }{
	{"Mozilla Public License", "MPL-2.0"},
	{"Apache License", "Apache-2.0"},
	{"GNU", "GPL, which this project does not accept"},
	{"Redistribution and use in source and binary forms", "BSD"},
	{"Permission to use, copy, modify, and/or distribute", "ISC"},
	{"Permission to use, copy, modify, and distribute", "ISC"},
	{"Permission is hereby granted, free of charge", "MIT"},
	{"This is free and unencumbered software released into the public domain", "Unlicense"},
}

// TestEveryDependencyLicenceIsListed compares licences.md with the linked modules and their licence
// files.
func TestEveryDependencyLicenceIsListed(t *testing.T) {
	list, err := os.ReadFile("licences.md")
	if err != nil {
		t.Fatal(err)
	}
	for use, packages := range map[string][]string{
		"shipped":         {"./functions/..."},
		"tests and tools": {"-test", "./..."},
	} {
		args := append([]string{"list", "-deps", "-json=Module"}, packages...)
		cmd := exec.Command("go", args...)
		cmd.Dir = builttest.Root(t)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %v: %v", args, err)
		}
		for path, dir := range modules(t, out) {
			row := "| " + path + " | " + licence(t, dir) + " | "
			if use == "shipped" {
				row += "shipped |"
			}
			if !strings.Contains(string(list), row) {
				t.Errorf("licences.md has no row that begins with %q", row)
			}
		}
	}
}

// modules returns the directories of the modules in the output of go list, by path, without our
// own.
func modules(t *testing.T, out []byte) map[string]string {
	t.Helper()
	dirs := map[string]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return dirs
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
}

func licence(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "[LC][IO][CP][EY]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range licences {
			if strings.Contains(string(text), l.phrase) {
				return l.name
			}
		}
	}
	t.Errorf("%s: unknown licence", dir)
	return "?"
}
