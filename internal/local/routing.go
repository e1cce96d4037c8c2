package local

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/allo/reservations/internal/route"
)

// routeTable holds the routes in the gateway's order of preference: the first match wins.
type routeTable []entry

type entry struct {
	route    route.Route
	segments []segment
}

// segment is one piece of a route's path, between two slashes.
type segment struct {
	kind kind
	name string // the literal, or the parameter's name
}

// kind is in the gateway's order of preference: a literal beats {name}, and {name} beats {name+}.
type kind int

const (
	literal kind = iota
	single
	greedy
)

func newRouteTable(routes []route.Route) (routeTable, error) {
	t := make(routeTable, 0, len(routes))
	for _, r := range routes {
		segments, err := parsePath(r.Path)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Key(), err)
		}
		t = append(t, entry{r, segments})
	}
	slices.SortStableFunc(t, func(a, b entry) int {
		return cmp.Or(
			slices.CompareFunc(a.segments, b.segments, compareSegments),
			cmp.Compare(a.route.Method, b.route.Method),
		)
	})
	for i := 1; i < len(t); i++ {
		a, b := t[i-1], t[i]
		samePath := slices.CompareFunc(a.segments, b.segments, compareSegments) == 0
		if samePath && a.route.Method == b.route.Method {
			return nil, fmt.Errorf("routes %s and %s take the same requests", a.route.Key(), b.route.Key())
		}
	}
	return t, nil
}

// compareSegments returns 0 for segments that take the same requests. The names of parameters don't
// count.
func compareSegments(a, b segment) int {
	if a.kind != b.kind || a.kind != literal {
		return cmp.Compare(a.kind, b.kind)
	}
	return cmp.Compare(a.name, b.name)
}

func parsePath(path string) ([]segment, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, fmt.Errorf("path %q doesn't begin with a slash", path)
	}
	pieces := strings.Split(rest, "/")
	segments := make([]segment, len(pieces))
	for i, piece := range pieces {
		segments[i] = parseSegment(piece)
		if segments[i].kind == greedy && i < len(pieces)-1 {
			return nil, fmt.Errorf("%s must be the path's last segment", piece)
		}
		if segments[i].name == "" && rest != "" || strings.ContainsAny(segments[i].name, "{}+") {
			return nil, fmt.Errorf("path %q has a malformed segment %q", path, piece)
		}
	}
	return segments, nil
}

func parseSegment(piece string) segment {
	name, opened := strings.CutPrefix(piece, "{")
	name, closed := strings.CutSuffix(name, "}")
	if !opened || !closed {
		return segment{literal, piece}
	}
	if name, ok := strings.CutSuffix(name, "+"); ok {
		return segment{greedy, name}
	}
	return segment{single, name}
}

// match returns the route of a request and the decoded values of its parameters. It splits the path
// before it decodes it, so that an escaped slash stays inside its parameter.
func (t routeTable) match(method, escapedPath string) (route.Route, map[string]string, bool) {
	rest, ok := strings.CutPrefix(escapedPath, "/")
	if !ok {
		return route.Route{}, nil, false
	}
	pieces := strings.Split(rest, "/")
	for i, piece := range pieces {
		if decoded, err := url.PathUnescape(piece); err == nil {
			pieces[i] = decoded
		}
	}
	for _, e := range t {
		if e.route.Method != method {
			continue
		}
		if params, ok := e.match(pieces); ok {
			return e.route, params, true
		}
	}
	return route.Route{}, nil, false
}

// match returns the values of the parameters. A parameter isn't empty: /a/ matches neither /a/{id}
// nor /a/{proxy+}.
func (e entry) match(pieces []string) (map[string]string, bool) {
	var params map[string]string
	for i, s := range e.segments {
		if i >= len(pieces) {
			return nil, false
		}
		value := pieces[i]
		if s.kind == greedy {
			value = strings.Join(pieces[i:], "/")
			pieces = pieces[:i+1]
		}
		if s.kind == literal && value != s.name || s.kind != literal && value == "" {
			return nil, false
		}
		if s.kind != literal {
			if params == nil {
				params = map[string]string{}
			}
			params[s.name] = value
		}
	}
	return params, len(pieces) == len(e.segments)
}
