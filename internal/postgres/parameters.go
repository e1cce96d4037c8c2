package postgres

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// parameter is what happens to a parameter of the database's URL. The table in doc.go says why.
type parameter struct {
	name string
	// values are the valid values. Nil allows every value that the driver takes.
	values []string
}

// honoured lists the parameters that a URL may have. Every program that connects by a URL honours
// all of them, and refuses every other one.
var honoured = []parameter{
	{name: "host"},
	{name: "port"},
	{name: "user"},
	{name: "password"},
	{name: "passfile"},
	{name: "dbname"},
	{name: "sslmode"},
	{name: "sslrootcert"},
	{name: "sslcert"},
	{name: "sslcertmode"},
	{name: "sslkey"},
	{name: "sslsni"},
	{name: "sslnegotiation"},
	{name: "channel_binding"},
	{name: "require_auth"},
	{name: "min_protocol_version"},
	{name: "max_protocol_version"},
	{name: "target_session_attrs", values: []string{"any", "read-write", "primary"}},
	{name: "connect_timeout"},
	{name: applicationNameParameter},
	{name: execMode, values: []string{cacheStatement, execUnnamed}},
}

// applicationNameParameter is the one run-time parameter that a connection starts with. Poolers
// refuse most others.
const applicationNameParameter = "application_name"

// ParameterError means that a URL has a parameter that no program of ours honours, or an invalid
// value of one. It doesn't repeat the value, which may be a password under a mistyped name.
type ParameterError struct {
	Name   string
	reason string
}

func (e *ParameterError) Error() string {
	return fmt.Sprintf("the parameter %.64q of the database's URL %s", e.Name, e.reason)
}

// CheckParameters checks the parameters of a postgres:// URL. It returns a *ParameterError, or an
// error that doesn't repeat the URL when the parameters can't be read.
func CheckParameters(address string) error {
	parameters, err := readParameters(address)
	if err != nil {
		return err
	}
	for i, p := range parameters {
		if slices.ContainsFunc(parameters[:i], func(q keyValue) bool { return q.key == p.key }) {
			return &ParameterError{p.key, "is given twice"}
		}
		at := slices.IndexFunc(honoured, func(h parameter) bool { return h.name == p.key })
		if at < 0 {
			return &ParameterError{p.key, "is refused: the URL only says where the database is " +
				"and how to reach it. If it is a setting of the server, remove it from the URL; " +
				"the migration sets the settings that the service needs on its role"}
		}
		if values := honoured[at].values; values != nil && !slices.Contains(values, p.value) {
			return &ParameterError{p.key, "must be one of " + strings.Join(values, ", ")}
		}
	}
	return nil
}

// keyValue is a parameter of a URL.
type keyValue struct{ key, value string }

// readParameters reads the part of a URL behind the question mark, as libpq does: a user and a
// password come first, and a plus sign isn't a space.
func readParameters(address string) ([]keyValue, error) {
	_, rest, found := strings.Cut(address, "://")
	if !found {
		return nil, errMalformed
	}
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	_, query, _ := strings.Cut(rest, "?")
	if query == "" {
		return nil, nil
	}
	var parameters []keyValue
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		var err error
		if key, err = url.PathUnescape(key); err != nil {
			return nil, errMalformed
		}
		if value, err = url.PathUnescape(value); err != nil {
			return nil, errMalformed
		}
		parameters = append(parameters, keyValue{key, value})
	}
	return parameters, nil
}

// parameterOf returns a parameter's value, or "" without one. The URL's parameters are valid.
func parameterOf(address, name string) string {
	parameters, _ := readParameters(address) // CheckParameters has reported an error
	for _, p := range parameters {
		if p.key == name {
			return p.value
		}
	}
	return ""
}

// ClientURL makes a URL for psql. It takes out the passwords, because every user of a machine can
// read a command line, and the parameter that only our driver knows.
func ClientURL(address string) (rest, password string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", errMalformed
	}
	query := u.Query()
	password = query.Get("password")
	if u.User != nil {
		if own, has := u.User.Password(); has && password == "" {
			password = own
		}
		u.User = url.User(u.User.Username())
	}
	query.Del("password")
	query.Del(execMode)
	// psql takes a plus sign for itself.
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u.String(), password, nil
}
