package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_"
	// leastKey and mostKey are the bounds of a key that Standard Webhooks gives, in bytes.
	leastKey, mostKey = 24, 64
	// mostSecrets is how many secrets an endpoint may have: two while one replaces the other.
	mostSecrets = 2
)

// Secret is a key that an endpoint shares with the service.
type Secret struct{ key []byte }

// String doesn't show the key, so that no log does.
func (s Secret) String() string { return secretPrefix + "***" }

// GoString doesn't show the key either.
func (s Secret) GoString() string { return s.String() }

// NewSecret makes the text of a random secret.
func NewSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand never fails: it ends the program instead
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// ParseSecrets reads one secret, or two with blanks between them. Each is whsec_ and the base64 of
// 24 to 64 bytes. The error doesn't repeat the text.
func ParseSecrets(text string) ([]Secret, error) {
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > mostSecrets {
		return nil, fmt.Errorf("it holds %d secrets; it must hold one, or two while one replaces "+
			"the other, with a blank between them", len(fields))
	}
	var secrets []Secret
	for _, field := range fields {
		encoded, found := strings.CutPrefix(field, secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !found || err != nil || len(key) < leastKey || len(key) > mostKey {
			return nil, errors.New("a secret must be whsec_ and the base64 of 24 to 64 bytes")
		}
		secrets = append(secrets, Secret{key})
	}
	return secrets, nil
}

// Sign returns the header webhook-signature: a signature for each secret. The id must not have a
// full stop, which separates it from the time.
func Sign(secrets []Secret, id string, at time.Time, body []byte) string {
	var signatures []string
	for _, s := range secrets {
		mac := hmac.New(sha256.New, s.key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}
