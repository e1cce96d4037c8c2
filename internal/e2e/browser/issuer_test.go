package browser

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/issuer/signin"
)

// issuer is the stand-in issuer of a stack. Its address stays the same when it stops and starts
// again.
type issuer struct {
	t      *testing.T
	url    string
	door   *door
	signin *signin.Issuer
	server *http.Server
}

// newGuardedStack is newStack with auth on: the API asks for tokens of a stand-in issuer, and the
// console signs in there. A test's own calls of the API are the admin's.
func newGuardedStack(t *testing.T, changes ...func(*config.Config)) *stack {
	t.Helper()
	return newGuardedStackOf(t, signin.Options{}, changes...)
}

// newGuardedStackOf is newGuardedStack with an issuer that differs from the usual.
func newGuardedStackOf(
	t *testing.T, options signin.Options, changes ...func(*config.Config),
) *stack {
	t.Helper()
	i := newIssuer(t, options)
	return newStackOf(t, i, append([]func(*config.Config){i.guard}, changes...)...)
}

func newIssuer(t *testing.T, options signin.Options) *issuer {
	t.Helper()
	i := &issuer{t: t, door: newDoor(t)}
	i.url = "http://" + i.door.address()
	var err error
	if i.signin, err = signin.New(i.url, options); err != nil {
		t.Fatal(err)
	}
	i.up()
	t.Cleanup(i.down)
	return i
}

// up starts the issuer. down closes it and every connection to it.
func (i *issuer) up() {
	i.server = &http.Server{Handler: i.signin, ReadHeaderTimeout: time.Minute}
	go func(server *http.Server, l net.Listener) { _ = server.Serve(l) }(i.server, i.door.entrance())
}

func (i *issuer) down() { _ = i.server.Close() }

// guard sets a configuration so that the issuer's tokens are asked for.
func (i *issuer) guard(c *config.Config) {
	c.Auth = config.Auth{
		Kind: config.AuthJWT, JWTIssuer: i.url, JWTAudience: signin.Audience,
	}
	c.Pages.Guarded, c.Pages.OIDCIssuer, c.Pages.OIDCClientID = true, i.url, signin.ConsoleID
}

// token returns an access token of a group's account, or of the payment side.
func (i *issuer) token(subject string) string {
	i.t.Helper()
	token, err := i.signin.Token(i.t.Context(), subject)
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// signIn signs in at the console as a group's account, and leaves the tab at the path.
func (b *tab) signIn(group, path string) {
	b.t.Helper()
	b.visit(path)
	b.sees("h1", "Sign in to operations")
	b.click(".blank button")
	b.choosesAccount(group)
	b.sees(".account small", group)
	b.until(fmt.Sprintf("location.pathname + location.search === %q", path))
}

// choosesAccount waits for the issuer's page and chooses an account there. Chromium drops a click
// that comes before it has drawn a new page.
func (b *tab) choosesAccount(group string) {
	b.t.Helper()
	b.until("document.querySelector('h1').textContent === 'Who are you?' && " +
		"document.readyState === 'complete'")
	b.settle()
	b.click(fmt.Sprintf("button[name=account][value=%s]", group))
}

// seen collects different texts. It is safe for concurrent use.
type seen struct {
	mu    sync.Mutex
	texts map[string]bool
}

func (s *seen) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts == nil {
		s.texts = map[string]bool{}
	}
	if text != "" {
		s.texts[text] = true
	}
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.texts)
}
