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
	// defaultEngine is where SAM looks for a container engine when DOCKER_HOST doesn't say.
	defaultEngine = "unix:///var/run/docker.sock"
	// engineTimeout bounds a question to the engine, which answers in milliseconds.
	engineTimeout = 10 * time.Second
	// answerLimit is a hundred times the engine's longest answer to what we ask.
	answerLimit = 1 << 20
)

// engine is a container engine that speaks Docker's API.
type engine struct {
	address, base string
	client        *http.Client
}

// newEngine takes an address as DOCKER_HOST has it. It doesn't connect.
func newEngine(address string) (*engine, error) {
	network, place, ok := strings.Cut(address, "://")
	if !ok || network != "unix" && network != "tcp" {
		return nil, fmt.Errorf("the container engine's address is %q: it must begin with unix:// or tcp://; set DOCKER_HOST", address)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, place)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: engineTimeout}
	return &engine{address: address, base: "http://engine", client: client}, nil
}

// host is this machine as the engine's containers see it.
type host struct {
	// name is its address or its name on their network.
	name string
	// forwards tells that what is sent to name arrives at this machine's loopback: Docker Desktop does so.
	forwards bool
	// rootless tells that the containers' network is out of this machine's reach.
	rootless bool
}

// errMissing is the engine's 404.
var errMissing = errors.New("there is none")

// host asks the engine for this machine's place on the network that SAM's containers are on.
func (e *engine) host(ctx context.Context) (host, error) {
	var info struct {
		OperatingSystem string
		SecurityOptions []string
	}
	if err := e.get(ctx, "/info", &info); err != nil {
		return host{}, fmt.Errorf("no container engine answers at %s: start Docker, or podman's (podman system service), or set DOCKER_HOST: %w",
			e.address, err)
	}
	if strings.Contains(info.OperatingSystem, "Docker Desktop") {
		return host{name: "host.docker.internal", forwards: true}, nil
	}
	rootless := slices.ContainsFunc(info.SecurityOptions, func(o string) bool { return strings.Contains(o, "rootless") })
	// The default network is Docker's first name here, and podman's second.
	for _, name := range []string{"bridge", "podman"} {
		var network struct {
			IPAM struct{ Config []struct{ Gateway string } }
		}
		err := e.get(ctx, "/networks/"+name, &network)
		if errors.Is(err, errMissing) {
			continue
		}
		if err != nil {
			return host{}, fmt.Errorf("look at the network %s of %s: %w", name, e.address, err)
		}
		for _, c := range network.IPAM.Config {
			if ip := net.ParseIP(c.Gateway); ip != nil && ip.To4() != nil {
				return host{name: c.Gateway, rootless: rootless}, nil
			}
		}
	}
	return host{}, fmt.Errorf("the container engine at %s has no network named bridge or podman with an IPv4 gateway", e.address)
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
