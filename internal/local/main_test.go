package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

// patience is how long a test waits for a condition before it gives up. It is long because a busy
// machine is slow.
const patience = 30 * time.Second

// TestMain makes this test binary a Lambda too: a Runtime starts it again, with the Runtime API in
// the environment. So the tests use the real client of that API.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") != "" {
		runBootstrap(os.Getenv("TEST_INIT"))
		return
	}
	if os.Getenv("TEST_PARENT") != "" {
		runParent()
		return
	}
	os.Exit(m.Run())
}

// job is a test's payload for the bootstrap.
type job struct {
	Do  string
	Arg string
}

func runBootstrap(how string) {
	switch how {
	case "exit":
		fmt.Fprintln(os.Stderr, "some context first\nDATABASE_URL is not set")
		os.Exit(3)
	case "report":
		report(`{"errorType":"Config.Missing","errorMessage":"no such variable"}`)
		os.Exit(1)
	case "hang":
		<-context.Background().Done()
	}
	lambda.Start(work)
}

// report posts an init error, which aws-lambda-go never does but other runtimes do.
func report(document string) {
	response, err := http.Post(
		"http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+"/2018-06-01/runtime/init/error",
		"application/json",
		strings.NewReader(document),
	)
	if err == nil {
		_ = response.Body.Close()
	}
}

func work(ctx context.Context, j job) (any, error) {
	switch j.Do {
	case "echo":
		return j.Arg, nil
	case "pid":
		return os.Getpid(), nil
	case "environment":
		return os.Environ(), nil
	case "context":
		return describe(ctx), nil
	case "print":
		fmt.Println("to stdout:", j.Arg)
		fmt.Fprintln(os.Stderr, "to stderr:", j.Arg)
		return nil, nil
	case "fail":
		return nil, errors.New(j.Arg)
	case "panic":
		panic(j.Arg)
	case "exit":
		fmt.Fprintln(os.Stderr, j.Arg)
		os.Exit(7)
	case "hang": // prints its process id first
		fmt.Println(os.Getpid())
		select {}
	case "large":
		return string(make([]byte, maxResponse)), nil
	case "call": // calls the test's server and waits for its answer
		response, err := http.Get(j.Arg)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return os.Getpid(), err
	}
	return nil, fmt.Errorf("unknown job %q", j.Do)
}
