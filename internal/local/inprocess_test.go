package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

func TestConcurrentCallersGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()

	const callers, each, repeats = 16, 50, 1000
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Query().Get("x"), repeats))
	})
	g := newGateway(t, Handler(lambdahttp.New(echo, quiet)))
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			x := fmt.Sprintf("%02d", i)
			for range each {
				w := httptest.NewRecorder()
				g.ServeHTTP(w, httptest.NewRequest("GET", "/?x="+x, nil))
				if w.Body.String() != strings.Repeat(x, repeats) {
					t.Errorf("caller %s got %d %.20q", x, w.Code, w.Body)
				}
			}
		})
	}
	group.Wait()
}

func TestNewGatewayRefusesHandlersThatShareABuffer(t *testing.T) {
	t.Parallel()

	shared := lambda.NewHandler(func(context.Context, string) (string, error) { return "", nil })
	_, err := NewGateway(
		[]route.Route{{Function: "f", Method: "GET", Path: "/"}},
		map[string]Invoker{"f": shared},
		quiet,
	)

	if err == nil || !strings.Contains(err.Error(), "local.Handler") {
		t.Errorf("NewGateway error = %v, want one that names Handler", err)
	}
}

func TestInProcess(t *testing.T) {
	t.Parallel()

	wrong := errors.New("wrong")
	fn := Handler(func(ctx context.Context, n int) (map[string]int, error) {
		if lc, ok := lambdacontext.FromContext(ctx); !ok || lc.AwsRequestID == "" {
			t.Error("the function has no request id")
		}
		if n < 0 {
			return nil, wrong
		}
		return map[string]int{"n": n}, nil
	})

	if out, err := fn.Invoke(t.Context(), []byte(`7`)); err != nil || string(out) != `{"n":7}` {
		t.Errorf(`Invoke(7) = %s, %v, want {"n":7}`, out, err)
	}
	if _, err := fn.Invoke(t.Context(), []byte(`-1`)); !errors.Is(err, wrong) {
		t.Errorf("Invoke(-1) error = %v, want the function's", err)
	}
	if _, err := fn.Invoke(t.Context(), []byte(`{`)); err == nil {
		t.Error("Invoke of no JSON has no error")
	}
}
