package awsdb

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

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/postgres"
)

// The bounds of a secret.
const (
	// secretLife is how long the secret is used before it is read again. It bounds how long a moved
	// database goes unnoticed. A changed password is noticed at once.
	secretLife = 5 * time.Minute
	// secretTimeout bounds one read. Two reads leave time to connect within a connect's 5 s.
	secretTimeout = 1500 * time.Millisecond
	// maxSecret bounds the response, in bytes. A secret has at most 64 KiB, and JSON's escapes may
	// make them six times as many.
	maxSecret = 6*64<<10 + 4<<10
	// maxReason bounds the part of a refusal that is logged, in bytes.
	maxReason = 300
)

// Secret is a database whose URL is in Secrets Manager: as plain text, or as JSON together with the
// certificate of the provider's own authority:
//
//	{"url": "postgres://...", "ca": "-----BEGIN CERTIFICATE-----..."}
//
// A new connection reads the secret again when secretLife has passed or the database has refused
// the password.
type Secret struct {
	id      string
	account config.AWS
	now     func() time.Time

	mu     sync.Mutex
	client *http.Client // made at the first read, because parsing its roots takes milliseconds
	target postgres.Target
	read   time.Time
}

// NewSecret makes a Secret from its name or its ARN. It reads nothing yet.
func NewSecret(id string, account config.AWS) *Secret {
	return &Secret{id: id, account: account, now: time.Now}
}

func newClient() *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots(), MinVersion: tls.VersionTLS12},
		// Minutes and a freeze lie between two reads, so a kept connection would be dead.
		DisableKeepAlives: true,
	}
	// The signature is for one host, so no redirect is followed.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: stay}
}

// Target returns the secret's database. Concurrent callers wait for one read.
func (s *Secret) Target(ctx context.Context, again bool) (postgres.Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !again && s.target.URL != "" && s.now().Sub(s.read) < secretLife {
		return s.target, nil
	}
	text, err := s.get(ctx)
	if err != nil {
		return postgres.Target{}, fmt.Errorf("read the secret %s: %w", s.id, err)
	}
	target, err := parseSecret(text, s.account.Region)
	if err != nil {
		return postgres.Target{}, fmt.Errorf("the secret %s: %w", s.id, err)
	}
	s.target, s.read = target, s.now()
	return target, nil
}

// parseSecret parses a secret's text. Its errors don't repeat the text.
func parseSecret(text, region string) (postgres.Target, error) {
	content := struct{ URL, CA string }{URL: strings.TrimSpace(text)}
	if strings.HasPrefix(content.URL, "{") {
		content.URL = ""
		if err := json.Unmarshal([]byte(text), &content); err != nil {
			return postgres.Target{}, errors.New(
				`it begins like JSON but isn't valid JSON; it must be a URL, or ` +
					`{"url": "postgres://...", "ca": "..."}`)
		}
	}
	if content.URL == "" {
		return postgres.Target{}, errors.New(
			`it holds no URL; it must be a URL, or {"url": "postgres://...", "ca": "..."}`)
	}
	u, err := verified(content.URL)
	if err != nil {
		return postgres.Target{}, err
	}
	trusted := regionRoots(region) // the database may be RDS's
	if content.CA != "" {
		trusted = x509.NewCertPool() // a provider's own authority is the only one trusted
		if !trusted.AppendCertsFromPEM([]byte(content.CA)) {
			return postgres.Target{}, errors.New(
				`its "ca" holds no certificate; it must be the PEM file of the provider's authority`)
		}
	}
	return postgres.Target{URL: u.String(), Roots: trusted}, nil
}

// get reads the secret's text from Secrets Manager.
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
		return "", fmt.Errorf("call Secrets Manager: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read the response of Secrets Manager: %w", err)
	}
	if len(body) > maxSecret {
		return "", fmt.Errorf(
			"the response of Secrets Manager has more than %d bytes, too many for a secret", maxSecret)
	}
	if response.StatusCode != http.StatusOK {
		return "", refusal(response.StatusCode, body)
	}
	var answer struct{ SecretString string }
	if err := json.Unmarshal(body, &answer); err != nil {
		// The error doesn't quote the response, which may have the secret.
		return "", errors.New("the response of Secrets Manager isn't JSON")
	}
	if answer.SecretString == "" {
		return "", errors.New("it has no text; store the database's URL in it as text")
	}
	return answer.SecretString, nil
}

// request makes a signed GetSecretValue request.
func (s *Secret) request(ctx context.Context) (*http.Request, error) {
	body, err := json.Marshal(map[string]string{"SecretId": s.id})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint(),
		bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call Secrets Manager: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
	err = v4.NewSigner().SignHTTP(ctx, credentials(s.account), request, sum(body), "secretsmanager",
		s.account.Region, s.now())
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

// refusal is the error of a response without a secret. Its reason names the role and the secret,
// which an administrator needs to allow the read.
func refusal(status int, body []byte) error {
	var reason struct {
		Type    string `json:"__type"`
		Message string
	}
	_ = json.Unmarshal(body, &reason) // a proxy's response isn't JSON and leaves only the status
	_, name, found := strings.Cut(reason.Type, "#")
	if !found {
		name = reason.Type
	}
	return fmt.Errorf("the answer of Secrets Manager is %d %.*s: %.*s", status, maxReason, name,
		maxReason, reason.Message)
}
