package httpapi

import (
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/events/channel"
)

// liveAge is the Cache-Control of GET /api/live, which only a deploy changes. A page asks again
// when it is cut off.
const liveAge = "public, max-age=60"

// Live says where the live channel is. It is zero where there is none.
type Live struct {
	// URL is that of the WebSocket.
	URL string
	// Host is the channel's HTTP host, which AppSync wants in each authorization.
	Host string
}

// LiveOf makes a Live of the URLs of a channel's WebSocket and of its HTTP endpoint. It is zero
// when one of them is empty.
func LiveOf(socket, endpoint string) Live {
	if socket == "" || endpoint == "" {
		return Live{}
	}
	_, host, _ := strings.Cut(endpoint, "://")
	return Live{URL: socket, Host: host}
}

// liveDTO tells a page how to follow the stock and a hold. {id} in HoldsChannel is a hold's id.
type liveDTO struct {
	URL           string           `json:"url"`
	Protocol      string           `json:"protocol"`
	Channel       string           `json:"channel"`
	HoldsChannel  string           `json:"holdsChannel"`
	Authorization authorizationDTO `json:"authorization"`
}

// authorizationDTO is what a page sends to connect and to subscribe. It is no secret.
type authorizationDTO struct {
	Host          string `json:"host"`
	Authorization string `json:"Authorization"`
}

// live answers with the live channel, or with 204 where there is none and a page polls.
func (a *API) live(w *recorder, _ *http.Request) error {
	w.Header().Set("Cache-Control", liveAge)
	if a.opts.Live == (Live{}) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return writeJSON(w, http.StatusOK, liveDTO{
		URL: a.opts.Live.URL, Protocol: channel.Protocol, Channel: channel.AllStock,
		HoldsChannel:  channel.AnyHold,
		Authorization: authorizationDTO{Host: a.opts.Live.Host, Authorization: channel.Token},
	})
}
