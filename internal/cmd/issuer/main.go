// Command issuer serves a small issuer of tokens on this machine, for `make run` with AUTH=jwt.
// internal/local/README.md says how to use it. Whoever reaches it can have any token, so it listens
// on the loopback only.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/allo/reservations/internal/local/issuer"
)

func main() {
	port := flag.Int("port", 9400, "the port to listen on")
	flag.Parse()
	if err := serve(*port); err != nil {
		fmt.Fprintln(os.Stderr, "issuer: "+err.Error())
		os.Exit(1)
	}
}

func serve(port int) error {
	address := net.JoinHostPort("localhost", strconv.Itoa(port))
	i, err := issuer.New("http://" + address)
	if err != nil {
		return err
	}
	fmt.Printf("JWT_ISSUER=http://%s (Ctrl-C ends it)\n", address)
	server := &http.Server{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Handler: i,
		ReadHeaderTimeout: 10 * time.Second,
	}
	return server.ListenAndServe()
}
