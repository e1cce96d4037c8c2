package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/issuer/signin"
)

// usualIssuerPort is where the stand-in issuer listens, unless -issuer-port says otherwise.
const usualIssuerPort = 9400

// standIn is the stand-in issuer while it serves.
type standIn struct {
	*signin.Issuer
	url    string
	server *http.Server
}

// startIssuer starts the stand-in issuer where the command line asks for it, and sets c so that the
// gateway takes its tokens and the console signs in there. It returns nil without one.
func startIssuer(ctx context.Context, opts options, c *config.Config) (*standIn, error) {
	if !opts.auth {
		return nil, nil
	}
	if c.Auth.Kind != config.AuthNone || c.Pages.OIDCIssuer != "" {
		return nil, errors.New("-auth starts an issuer of its own: unset AUTH and OIDC_ISSUER, or " +
			"leave -auth out")
	}
	var lc net.ListenConfig
	// Whoever reaches the issuer may be anybody, so it listens on the loopback only.
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(opts.issuerPort)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is taken, on which the issuer would listen: choose another "+
			"one (make run ARGS='-auth -issuer-port %d')", opts.issuerPort, opts.issuerPort+1)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the issuer: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	s := &standIn{url: "http://" + net.JoinHostPort("localhost", strconv.Itoa(port))}
	if s.Issuer, err = signin.New(s.url, signin.Options{}); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.server = &http.Server{Handler: s.Issuer, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(l) }() // it ends by close
	c.Auth.Kind, c.Auth.JWTIssuer, c.Auth.JWTAudience = config.AuthJWT, s.url, signin.Audience
	c.Pages.OIDCIssuer, c.Pages.OIDCClientID = s.url, signin.ConsoleID
	return s, nil
}

// close ends the issuer.
func (s *standIn) close() error {
	if s == nil {
		return nil
	}
	return s.server.Close()
}

// tell says who may sign in, and how the payment side does.
func (s *standIn) tell(stdout io.Writer) {
	if s == nil {
		return
	}
	fmt.Fprintf(stdout, "The console signs in at %s, which has an account for each group\n", s.url)
	fmt.Fprintf(stdout, "The payment side is the client %s with the secret %s\n",
		signin.PaymentsID, s.PaymentsSecret())
}
