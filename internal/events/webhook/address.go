package webhook

import (
	"fmt"
	"net/netip"
	"syscall"
)

// ForbiddenAddressError means that an endpoint's host has an address that isn't public.
type ForbiddenAddressError struct{ Address netip.Addr }

func (e *ForbiddenAddressError) Error() string {
	return fmt.Sprintf("the address %s isn't public, so nothing is sent to it", e.Address)
}

// reserved are the blocks of IPv4, and of 2000::/3 in IPv6, that aren't public. They are those of
// IANA's registries of special-purpose addresses, and multicast.
var reserved = prefixes(
	"0.0.0.0/8",       // this network, the unspecified address among it
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, and the metadata of a cloud's machine
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // IETF protocols
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // future use, and broadcast
	"2001::/23",       // IETF protocols, Teredo's tunnels among them
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4, which carries any IPv4 address
	"3fff::/20",       // documentation
)

// unicast6 is the only block of IPv6 with public addresses. Outside of it are loopback, link-local,
// unique-local and multicast addresses, and the IPv4-mapped and NAT64 ones, which carry any IPv4
// address.
var unicast6 = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// public reports whether anyone on the internet may have the address.
func public(a netip.Addr) bool {
	if !a.Is4() && !unicast6.Contains(a) {
		return false
	}
	for _, block := range reserved {
		if block.Contains(a) {
			return false
		}
	}
	return true
}

// guard returns the function that a net.Dialer calls with each address before it connects.
func guard(allowLoopback bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		dialled, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("parse the dialled address: %w", err)
		}
		a := dialled.Addr()
		if public(a) || allowLoopback && a.IsLoopback() {
			return nil
		}
		return &ForbiddenAddressError{a}
	}
}
