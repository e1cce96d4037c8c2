package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// defaultEngine is where SAM looks for a container engine without DOCKER_HOST.
	defaultEngine = "unix:///var/run/docker.sock"
	// engineTimeout limits a request to the engine, which answers in milliseconds.
	engineTimeout = 10 * time.Second
	// answerLimit is a hundred times the engine's longest answer, in bytes.
	answerLimit = 1 << 20
)

// engine is a container engine that speaks Docker's API.
type engine struct {
	address, base string
	client        *http.Client
}

// newEngine returns the engine at an address in the form of DOCKER_HOST. It doesn't connect.
func newEngine(address string) (*engine, error) {
	network, place, ok := strings.Cut(address, "://")
	if !ok || network != "unix" && network != "tcp" {
		return nil, fmt.Errorf(
			"the container engine's address is %q: it must begin with unix:// or tcp://; set DOCKER_HOST",
			address,
		)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, place)
	}
	client := &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   engineTimeout,
	}
	return &engine{address: address, base: "http://engine", client: client}, nil
}

// host describes how the engine's containers reach this machine.
type host struct {
	// name is this machine's address or name on their network.
	name string
	// forwards means that the engine forwards connections from name to this machine's loopback, as
	// Docker Desktop does.
	forwards bool
	// rootless means that this machine can't listen on the containers' network.
	rootless bool
}

// errMissing means that the engine answered 404.
var errMissing = errors.New("not found")

// host asks the engine how SAM's containers reach this machine.
func (e *engine) host(ctx context.Context) (host, error) {
	var info struct {
		OperatingSystem string
		SecurityOptions []string
	}
	if err := e.get(ctx, "/info", &info); err != nil {
		return host{}, fmt.Errorf(
			"no container engine answers at %s: start Docker, or podman (podman system service), "+
				"or set DOCKER_HOST: %w",
			e.address,
			err,
		)
	}
	if strings.Contains(info.OperatingSystem, "Docker Desktop") {
		return host{name: "host.docker.internal", forwards: true}, nil
	}
	rootless := slices.ContainsFunc(
		info.SecurityOptions, func(o string) bool { return strings.Contains(o, "rootless") },
	)
	// Docker calls its default network bridge. Podman calls its own podman.
	for _, name := range []string{"bridge", "podman"} {
		var network struct {
			IPAM struct{ Config []struct{ Gateway string } }
		}
		err := e.get(ctx, "/networks/"+name, &network)
		if errors.Is(err, errMissing) {
			continue
		}
		if err != nil {
			return host{}, fmt.Errorf("inspect the network %s of %s: %w", name, e.address, err)
		}
		for _, c := range network.IPAM.Config {
			if ip := net.ParseIP(c.Gateway); ip != nil && ip.To4() != nil {
				return host{name: c.Gateway, rootless: rootless}, nil
			}
		}
	}
	return host{}, fmt.Errorf(
		"the container engine at %s has no network named bridge or podman with an IPv4 gateway",
		e.address,
	)
}

func (e *engine) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, nil)
	if err != nil {
		return err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	switch {
	case err != nil:
		return err
	case response.StatusCode == http.StatusNotFound:
		return errMissing
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, body)
	}
	return json.Unmarshal(body, into)
}
