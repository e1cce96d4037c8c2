package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"golang.org/x/oauth2/clientcredentials"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/local/issuer/signin"
)

// isDemo reports whether the shop is the demo. Its back end must be able to call the guarded
// routes, so there is none with an issuer of somebody else's or with signatures. And it sells by
// itself, so there is none on a database of another machine.
func isDemo(opts options, c config.Config, issuer *standIn) bool {
	isLocal := c.DatabaseURL == "" || demo.RefuseRemote(c.DatabaseURL) == nil
	return opts.demo && isLocal && (c.Auth.Kind == config.AuthNone || issuer != nil)
}

// backEnd is the back end of the demo's shop, or does nothing where there is none.
type backEnd struct {
	server *demo.Server
	app    *app.App
	stop   context.CancelFunc
	still  bool
}

// openBackEnd makes the back end for a gateway that will serve at the listener. Close it.
func openBackEnd(
	ctx context.Context, opts options, c config.Config, issuer *standIn, l net.Listener,
	log *slog.Logger,
) (*backEnd, error) {
	if !c.Pages.Demo {
		return &backEnd{}, nil
	}
	a, err := app.New(c, log, 1) // for the audit after a sale
	if err != nil {
		return nil, err
	}
	b := &backEnd{app: a, still: opts.still}
	ctx, b.stop = context.WithCancel(ctx)
	o := demo.Options{
		URL: "http://" + ownAddress(l), Audit: a.Service.Audit, Log: log,
	}
	if issuer != nil {
		o.Token = tokens(ctx, issuer)
	}
	b.server = demo.NewServer(ctx, o)
	return b, nil
}

// tokens returns a source of the demo's tokens. A token is used until shortly before its end.
func tokens(ctx context.Context, issuer *standIn) func(context.Context) (string, error) {
	source := (&clientcredentials.Config{
		ClientID: signin.DemoID, ClientSecret: issuer.DemoSecret(),
		TokenURL: issuer.url + "/oauth/token",
	}).TokenSource(ctx)
	return func(context.Context) (string, error) {
		token, err := source.Token()
		if err != nil {
			return "", err
		}
		return token.AccessToken, nil
	}
}

// ownAddress is where this program reaches its own listener.
func ownAddress(l net.Listener) string {
	address := *l.Addr().(*net.TCPAddr)
	if address.IP.IsUnspecified() {
		address.IP = net.IPv4(127, 0, 0, 1)
	}
	return address.String()
}

// before puts the back end before the gateway.
func (b *backEnd) before(next http.Handler) http.Handler {
	if b.server == nil {
		return next
	}
	return b.server.Before(next)
}

// run sends shoppers until ctx ends, unless the shop is to be still.
func (b *backEnd) run(ctx context.Context) {
	if b.server != nil && !b.still {
		b.server.RunShoppers(ctx)
	}
}

// close ends a sale that runs.
func (b *backEnd) close() {
	if b.server == nil {
		return
	}
	b.stop()
	b.server.Wait()
	b.app.Close()
}
