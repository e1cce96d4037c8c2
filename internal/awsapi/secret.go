package awsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/allo/reservations/internal/config"
)

const (
	// SecretLife is how long a secret is used before it is read again. It bounds how long a changed
	// secret goes unnoticed by a caller that doesn't ask for it anew.
	SecretLife = 5 * time.Minute
	// SecretTimeout bounds one read. Two reads leave time to connect within a connect's 5 s.
	SecretTimeout = 1500 * time.Millisecond
	// maxSecret bounds the response, in bytes. A secret has at most 64 KiB, and JSON's escapes may
	// make them six times as many.
	maxSecret = 6*64<<10 + 4<<10
)

var secretsManager = Service{
	Title: "Secrets Manager", Host: "secretsmanager", Target: "secretsmanager",
	ContentType: "application/x-amz-json-1.1", Timeout: SecretTimeout, MaxAnswer: maxSecret,
}

// Secret is a text in Secrets Manager, parsed to a value. It keeps the value for SecretLife. It is
// safe for concurrent use.
type Secret[T any] struct {
	id     string
	client *Client
	parse  func(text string) (T, error)

	mu    sync.Mutex
	value T
	read  time.Time // zero before the first successful read
}

// NewSecret makes a Secret from its name or its ARN. It reads nothing yet. The error of parse must
// not repeat the text.
func NewSecret[T any](
	id string, account config.AWS, parse func(text string) (T, error),
) *Secret[T] {
	client := NewClient(secretsManager, account, account.SecretsEndpoint)
	return &Secret[T]{id: id, client: client, parse: parse}
}

// Get returns the value. It reads the secret when SecretLife has passed since the last read, or
// when again is true. Concurrent callers wait for one read. A failed read keeps nothing.
func (s *Secret[T]) Get(ctx context.Context, again bool) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !again && !s.read.IsZero() && s.client.now().Sub(s.read) < SecretLife {
		return s.value, nil
	}
	var none T
	text, err := s.text(ctx)
	if err != nil {
		return none, fmt.Errorf("read the secret %s: %w", s.id, err)
	}
	value, err := s.parse(text)
	if err != nil {
		return none, fmt.Errorf("the secret %s: %w", s.id, err)
	}
	s.value, s.read = value, s.client.now()
	return value, nil
}

func (s *Secret[T]) text(ctx context.Context) (string, error) {
	body, err := s.client.Call(ctx, "GetSecretValue", map[string]string{"SecretId": s.id})
	if err != nil {
		return "", err
	}
	var answer struct{ SecretString string }
	if err := json.Unmarshal(body, &answer); err != nil {
		// The error doesn't quote the response, which may have the secret.
		return "", errors.New("the response of Secrets Manager isn't JSON")
	}
	if answer.SecretString == "" {
		return "", errors.New("it has no text; store it as text, not as binary data")
	}
	return answer.SecretString, nil
}
