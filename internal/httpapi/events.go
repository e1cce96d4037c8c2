package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
)

// defaultEventPage is the number of events on a page when the request names none.
const defaultEventPage = 100

// maxTypes is the most types that a request may name: all of them.
const maxTypes = 8

// eventsAnswer is a page of events, each as it is published.
type eventsAnswer struct {
	Events []jsontext.Value `json:"events"`
	// Next is the cursor behind the page.
	Next string `json:"next"`
}

func (a *API) listEvents(w *recorder, r *http.Request) error {
	q := readQuery(r)
	limit := q.readLimit(defaultEventPage, outbox.MaxPage)
	types := q.readTypes()
	var after string
	q.read("after", badAfter, func(value string) bool {
		after = value
		return value != ""
	})
	since := q.readTime("since")
	if after != "" && !since.IsZero() {
		q.bad.add("since", "must not be given with after")
	}
	if err := q.bad.err(); err != nil {
		return err
	}
	page, next, err := a.readEvents(r.Context(), after, since, types, limit)
	if errors.Is(err, outbox.ErrBadCursor) {
		return invalid("after", badAfter)
	}
	if err != nil {
		return err
	}
	answer := eventsAnswer{Events: make([]jsontext.Value, 0, len(page)), Next: next}
	for _, e := range page {
		answer.Events = append(answer.Events, jsontext.Value(e.Body))
	}
	return writeJSON(w, http.StatusOK, answer)
}

// readEvents reads a page of events behind a cursor, or since a time.
func (a *API) readEvents(
	ctx context.Context, after string, since time.Time, types []string, limit int,
) (page []events.Event, next string, err error) {
	if since.IsZero() {
		return a.outbox.List(ctx, after, types, limit)
	}
	return a.outbox.ListSince(ctx, since, types, limit)
}

// badAfter says what a valid cursor of GET /api/events is.
const badAfter = "must be the next of an earlier page of events, unchanged"

// readTypes reads the types of events to list, separated by commas: nil without any.
func (q query) readTypes() (types []string) {
	q.read("types", "must be types of events, separated by commas", func(value string) bool {
		types = strings.Split(value, ",")
		return len(types) <= maxTypes && !slices.ContainsFunc(types, func(name string) bool {
			return !slices.Contains(events.Types(), name)
		})
	})
	return types
}

// transitionDTO is a row of a hold's ledger in the contract's form.
type transitionDTO struct {
	Version   int       `json:"version"`
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Cause     string    `json:"cause"`
	Actor     *string   `json:"actor"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func (a *API) history(w *recorder, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	history, err := a.outbox.History(r.Context(), id)
	if err != nil {
		return err
	}
	body := make([]transitionDTO, 0, len(history))
	for _, t := range history {
		body = append(body, transitionDTO(t))
	}
	return writeJSON(w, http.StatusOK, body)
}
