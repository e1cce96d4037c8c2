package reservation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/allo/reservations/internal/principal"
)

// validateKey accepts printable ASCII without a comma. A gateway joins repeated headers with
// commas, so a key with a comma could be two keys.
//
// It refuses every key of a caller whom nothing names: two such callers would share their keys
// without knowing.
func validateKey(ctx context.Context, invalid *InvalidError, key string) {
	ok := len(key) <= MaxKeyLength
	for _, c := range []byte(key) {
		ok = ok && c >= ' ' && c <= '~' && c != ','
	}
	if !ok {
		invalid.add("Idempotency-Key", "must be 1 to %d printable ASCII characters without a comma",
			MaxKeyLength)
	}
	if key != "" && principal.From(ctx).Kind == principal.Unnamed {
		invalid.add("Idempotency-Key",
			"needs credentials that name the caller, such as a token with a sub")
	}
}

// keyArgs returns a procedure's two arguments for an Idempotency-Key of the context's principal:
// the key as the database knows it, and the hash of the request that it binds. Without a key both
// are null.
func keyArgs(
	ctx context.Context, key, verb string, parts ...[]byte,
) (name *string, hash []byte) {
	if key == "" {
		return nil, nil
	}
	stored := storedKey(principal.From(ctx), key)
	sum := sha256.Sum256(fingerprint(verb, parts...))
	return &stored, sum[:]
}

// storedKey is the name of a principal's key in the database. It must stay the same across
// releases.
//
// Each principal has a namespace of its own (I6). The keys of the anonymous one are stored as they
// come. A key of any other becomes a comma and a hash of the principal and the key. No caller can
// send that name, because a key has no comma. It has a fixed length, so it fits into the column. It
// also keeps the key itself out of the database, and gives claim_key a number for its lock that no
// other principal can aim at.
func storedKey(p principal.Principal, key string) string {
	if p.Kind == principal.Anonymous {
		return key
	}
	sum := sha256.Sum256(fingerprint(string(p.Kind), []byte(p.ID), []byte(key)))
	return "," + hex.EncodeToString(sum[:])
}

// fingerprint encodes the part of a request that an Idempotency-Key binds: its meaning, not its
// spelling. Each part begins with its length, so no two requests have the same bytes.
func fingerprint(verb string, parts ...[]byte) []byte {
	out := []byte{byte(len(verb))} // #nosec G115 -- a verb's name is short
	out = append(out, verb...)
	for _, part := range parts {
		length := uint32(len(part)) // #nosec G115 -- no part of a request is as long
		out = binary.BigEndian.AppendUint32(out, length)
		out = append(out, part...)
	}
	return out
}
