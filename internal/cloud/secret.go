package cloud

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/allo/reservations/internal/dsn"
)

// Bounds of a secret.
const (
	// secretLife is how long what was read is used: it bounds how long a database that has moved goes unnoticed. A password that was changed
	// is noticed at once.
	secretLife = 5 * time.Minute
	// secretTimeout bounds one reading, so that two of them leave time to connect within a connect's five seconds.
	secretTimeout = 1500 * time.Millisecond
	// maxSecret bounds the answer: a secret has at most 64 KiB, of which JSON may make six times as much.
	maxSecret = 6*64<<10 + 4<<10
	// maxReason bounds what is told of a refusal.
	maxReason = 300
)

// Secret is a database whose URL Secrets Manager keeps: as plain text, or as JSON with the certificate of the authority that its provider
// has of its own: {"url": "postgres://...", "ca": "-----BEGIN CERTIFICATE-----..."}. It is read when a connection is made and what was read
// has grown old, or was refused by the database.
type Secret struct {
	id      string
	account Account
	now     func() time.Time

	mu     sync.Mutex
	client *http.Client // made when it is first needed, as its roots take milliseconds to parse, which a start would wait for
	target dsn.Target
	read   time.Time
}

// NewSecret makes a Secret of its name or its ARN. It reads nothing yet.
func NewSecret(id string, account Account) *Secret {
	return &Secret{id: id, account: account, now: time.Now}
}

func newClient() *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots(), MinVersion: tls.VersionTLS12},
		// Between two readings lie minutes, and a freeze: a connection that was kept would be dead.
		DisableKeepAlives: true,
	}
	// What was signed for one host isn't for another.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: stay}
}

// Target returns what the secret says. Those who come at once wait for one reading.
func (s *Secret) Target(ctx context.Context, again bool) (dsn.Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !again && s.target.URL != "" && s.now().Sub(s.read) < secretLife {
		return s.target, nil
	}
	text, err := s.get(ctx)
	if err != nil {
		return dsn.Target{}, fmt.Errorf("read the secret %s: %w", s.id, err)
	}
	target, err := parseSecret(text, s.account.Region)
	if err != nil {
		return dsn.Target{}, fmt.Errorf("the secret %s: %w", s.id, err)
	}
	s.target, s.read = target, s.now()
	return target, nil
}

// parseSecret reads a secret's text. Its errors don't repeat it.
func parseSecret(text, region string) (dsn.Target, error) {
	content := struct{ URL, CA string }{URL: strings.TrimSpace(text)}
	if strings.HasPrefix(content.URL, "{") {
		content.URL = ""
		if err := json.Unmarshal([]byte(text), &content); err != nil {
			return dsn.Target{}, errors.New(`it begins as JSON and isn't; it must be a URL, or {"url": "postgres://...", "ca": "..."}`)
		}
	}
	if content.URL == "" {
		return dsn.Target{}, errors.New(`it holds no URL; it must be a URL, or {"url": "postgres://...", "ca": "..."}`)
	}
	u, err := verified(content.URL)
	if err != nil {
		return dsn.Target{}, err
	}
	trusted := regionRoots(region) // which may be RDS's too, with a password
	if content.CA != "" {
		trusted = x509.NewCertPool() // who has an authority of its own has only that one
		if !trusted.AppendCertsFromPEM([]byte(content.CA)) {
			return dsn.Target{}, errors.New(`its "ca" holds no certificate; it must be the PEM file of the provider's authority`)
		}
	}
	return dsn.Target{URL: u.String(), Roots: trusted}, nil
}

// get asks Secrets Manager.
func (s *Secret) get(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	request, err := s.request(ctx)
	if err != nil {
		return "", err
	}
	if s.client == nil {
		s.client = newClient()
	}
	response, err := s.client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask Secrets Manager: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read the answer of Secrets Manager: %w", err)
	}
	if len(body) > maxSecret {
		return "", fmt.Errorf("the answer of Secrets Manager is larger than %d bytes, so it is no secret's", maxSecret)
	}
	if response.StatusCode != http.StatusOK {
		return "", refusal(response.StatusCode, body)
	}
	var answer struct{ SecretString string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", errors.New("the answer of Secrets Manager isn't JSON") // what it is may be the secret
	}
	if answer.SecretString == "" {
		return "", errors.New("it has no text; put the database's URL into it as text")
	}
	return answer.SecretString, nil
}

// request is a signed GetSecretValue.
func (s *Secret) request(ctx context.Context) (*http.Request, error) {
	body, err := json.Marshal(map[string]string{"SecretId": s.id})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask Secrets Manager: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
	err = v4.NewSigner().SignHTTP(ctx, s.account.credentials(), request, sum(body), "secretsmanager", s.account.Region, s.now())
	if err != nil {
		return nil, fmt.Errorf("sign the request to Secrets Manager: %w", err)
	}
	return request, nil
}

func sum(body []byte) string {
	digest := sha256.Sum256(body)
	return hex.EncodeToString(digest[:])
}

func (s *Secret) endpoint() string {
	if s.account.SecretsEndpoint != "" {
		return strings.TrimSuffix(s.account.SecretsEndpoint, "/") + "/"
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(s.account.Region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	return "https://secretsmanager." + s.account.Region + "." + domain + "/"
}

// refusal is what Secrets Manager says when it gives no secret. Its reason names the role and the secret, for whoever has to allow it.
func refusal(status int, body []byte) error {
	var reason struct {
		Type    string `json:"__type"`
		Message string
	}
	_ = json.Unmarshal(body, &reason) // a proxy's answer isn't JSON; then the status is all there is
	_, name, found := strings.Cut(reason.Type, "#")
	if !found {
		name = reason.Type
	}
	return fmt.Errorf("the answer of Secrets Manager is %d %.*s: %.*s", status, maxReason, name, maxReason, reason.Message)
}
