package local

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/problem"
)

// codeNoCell means that no cell has the host of a request.
const codeNoCell = "NO_CELL"

// Cell is a whole deployment: a database, a set of functions and a gateway. It has the shops of its
// hosts, and shares nothing with another cell.
type Cell struct {
	Name string
	// Hosts are the names by which callers reach the cell, without a port.
	Hosts []string
	// Gateway serves the calls of the cell. A *Gateway does.
	Gateway http.Handler
}

// Router is an http.Handler that sends each request to the cell of its host. On AWS the DNS and the
// custom domains of API Gateway do this, and no code of ours runs there.
//
// A Router is immutable. It has no lock, no queue and no connections, and asks no cell about
// another's request. So a cell that is dead or slow holds up its own callers only.
type Router struct {
	cells map[string]http.Handler // by host
}

// NewRouter returns a Router for the cells. It fails when two cells have the same host, and when a
// cell has no gateway, no host, or a host with a port or another letter than a host may have.
func NewRouter(cells ...Cell) (*Router, error) {
	r := &Router{cells: map[string]http.Handler{}}
	owner := map[string]string{}
	for _, c := range cells {
		if c.Gateway == nil || len(c.Hosts) == 0 {
			return nil, fmt.Errorf("cell %q: it needs a gateway and at least one host", c.Name)
		}
		for _, name := range c.Hosts {
			host := cellHost(name)
			if host == "" || host != strings.ToLower(name) || strings.Trim(host, hostLetters) != "" {
				return nil, fmt.Errorf("cell %q: %q isn't the name of a host", c.Name, name)
			}
			if r.cells[host] != nil {
				return nil, fmt.Errorf("cells %q and %q have the same host %s", owner[host], c.Name, host)
			}
			r.cells[host], owner[host] = c.Gateway, c.Name
		}
	}
	return r, nil
}

// hostLetters are the characters of a host in lower case.
const hostLetters = "abcdefghijklmnopqrstuvwxyz0123456789-."

// cellHost returns the name in a Host header as the Router knows it: in lower case, without the
// port, and without the final dot of an absolute name.
func cellHost(header string) string {
	return strings.TrimSuffix(strings.ToLower(hostname(header)), ".")
}

// ServeHTTP hands the request to the cell of its host. Another host is 421: the request came to the
// wrong place, so it had no effect, and a caller may send it to the right one (RFC 9110, 15.5.20).
func (r *Router) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	cell := r.cells[cellHost(request.Host)]
	if cell == nil {
		problem.New(http.StatusMisdirectedRequest, codeNoCell, "Misdirected request",
			"No shop has this host.").Write(w)
		return
	}
	cell.ServeHTTP(w, request)
}
