package local

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	signedService = "execute-api"
	signedDate    = "20060102T150405Z"
	// clockSkew is how far a request's date may be from the gateway's clock.
	clockSkew = 5 * time.Minute
)

// CurlSigns has the option with which curl signs a request as the gateway checks it. The user is
// the credential: -u id:secret.
const CurlSigns = "curl --aws-sigv4 aws:amz:" + region + ":" + signedService

// The only caller: an IAM user who may invoke every route.
const (
	callerID  = "AIDALOCALCALLER00000"
	callerARN = "arn:aws:iam::" + accountID + ":user/local"
)

// iamAuthorizer stands in for IAM. It takes requests that one credential has signed by Signature
// Version 4, in the Authorization header. It refuses a presigned URL, a session token, and a body
// that isn't signed.
type iamAuthorizer struct {
	service     string // that requests are signed for
	credentials aws.Credentials
	signer      *v4.Signer
	now         func() time.Time
}

func newIAMAuthorizer(accessKeyID, secretAccessKey string) *iamAuthorizer {
	return &iamAuthorizer{
		service:     signedService,
		credentials: aws.Credentials{AccessKeyID: accessKeyID, SecretAccessKey: secretAccessKey},
		signer:      v4.NewSigner(),
		now:         time.Now,
	}
}

// authorize ignores the scope: with IAM a caller's policies name routes, and the one caller here
// may invoke them all.
func (a *iamAuthorizer) authorize(
	r *http.Request, body []byte, _ string,
) (authorizerContext, *refusal) {
	if err := a.verify(r, body); err != nil {
		return authorizerContext{}, &refusal{status: http.StatusForbidden, reason: err.Error()}
	}
	return authorizerContext{IAM: &iamContext{
		AccessKey: a.credentials.AccessKeyID, AccountID: accountID,
		CallerID: callerID, UserARN: callerARN, UserID: callerID,
	}}, nil
}

// verify signs the request again, with the headers that the caller signed, and compares the
// signatures. The signer always signs the host and the date, so a list of headers that lacks them
// isn't the signer's.
func (a *iamAuthorizer) verify(r *http.Request, body []byte) error {
	sent, err := parseSignature(r.Header)
	if err != nil {
		return err
	}
	date, err := time.Parse(signedDate, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return errors.New("X-Amz-Date isn't a date such as 20060102T150405Z")
	}
	if skew := a.now().Sub(date).Abs(); skew > clockSkew {
		return fmt.Errorf("X-Amz-Date is %s away from the gateway's clock", skew.Round(time.Second))
	}
	credential := fmt.Sprintf("%s/%s/%s/%s/aws4_request",
		a.credentials.AccessKeyID, date.Format("20060102"), region, a.service)
	if sent.credential != credential {
		return fmt.Errorf("the credential isn't %s", credential)
	}
	signed, err := onlySigned(r, sent.headers, len(body))
	if err != nil {
		return err
	}
	digest := sha256.Sum256(body)
	if err := a.signer.SignHTTP(context.WithoutCancel(r.Context()), a.credentials, signed,
		hex.EncodeToString(digest[:]), a.service, region, date); err != nil {
		return err
	}
	want, err := parseSignature(signed.Header)
	if err != nil {
		return err
	}
	if !slices.Equal(want.headers, sent.headers) {
		return errors.New("SignedHeaders must be sorted, be there, and have the host and X-Amz-Date")
	}
	if !hmac.Equal([]byte(want.signature), []byte(sent.signature)) {
		return errors.New("the signature doesn't match the request")
	}
	return nil
}

// onlySigned returns the request with the headers that the caller signed. It fails when the caller
// left something unsigned that changes what the signature means: a header of AWS, or a part of the
// query that can't be decoded, which the signer leaves out.
func onlySigned(r *http.Request, headers []string, size int) (*http.Request, error) {
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, errors.New("the query can't be decoded, so it can't be signed")
	}
	if r.Header.Get("X-Amz-Security-Token") != "" {
		return nil, errors.New("the credential has no session token")
	}
	signed := &http.Request{Method: r.Method, URL: new(*r.URL), Host: r.Host, Header: http.Header{}}
	for name, values := range r.Header {
		isSigned := slices.Contains(headers, strings.ToLower(name))
		if strings.HasPrefix(name, "X-Amz-") && !isSigned {
			return nil, fmt.Errorf("the header %s isn't signed", name)
		}
		if isSigned {
			signed.Header[name] = slices.Clone(values) // the signer writes into it
		}
	}
	if slices.Contains(headers, "content-length") {
		signed.ContentLength = int64(size)
	}
	return signed, nil
}

// signature is what an Authorization header of Signature Version 4 says.
type signature struct {
	credential, signature string
	headers               []string
}

func parseSignature(h http.Header) (signature, error) {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return signature{}, errors.New("the request needs one Authorization header, with a signature")
	}
	rest, ok := strings.CutPrefix(values[0], "AWS4-HMAC-SHA256 ")
	if !ok {
		return signature{}, errors.New("the Authorization header isn't AWS4-HMAC-SHA256")
	}
	fields := map[string]string{}
	for _, field := range strings.Split(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		if _, twice := fields[name]; twice {
			return signature{}, fmt.Errorf("the Authorization header has two %.20q", name)
		}
		fields[name] = value
	}
	if len(fields) != 3 {
		return signature{}, errors.New(
			"the Authorization header needs Credential, SignedHeaders and Signature")
	}
	return signature{
		fields["Credential"], fields["Signature"], strings.Split(fields["SignedHeaders"], ";"),
	}, nil
}
