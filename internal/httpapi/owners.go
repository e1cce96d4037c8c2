package httpapi

import "net/http"

// eraseRequest names the customer to forget.
type eraseRequest struct {
	Owner *string `json:"owner"`
}

// eraseAnswer says how many holds have lost their owner and their reference. More asks the caller
// to send the request again, under another Idempotency-Key.
type eraseAnswer struct {
	Erased int  `json:"erased"`
	More   bool `json:"more"`
}

// eraseOwner forgets an owner.
func (a *API) eraseOwner(w *recorder, r *http.Request) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var q eraseRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	if q.Owner == nil {
		return invalid("owner", "is required")
	}
	erased, err := a.service.EraseOwner(r.Context(), *q.Owner, key)
	if err != nil {
		return err
	}
	w.succeed(outcomeErased, erased.Replayed)
	return writeJSON(w, http.StatusOK, eraseAnswer{Erased: erased.Holds, More: erased.More})
}
