# Carpool. `make` alone lists what can be made.

GO             ?= go
GOFUMPT         = v0.12.0
GOLANGCI_LINT   = v2.15.0
BENCHSTAT       = v0.0.0-20260908200009-22c9c6c9d4da

TOOLS          := $(CURDIR)/.tools/bin
LDFLAGS         = -s -w
FUZZTIME       ?= 10s
BENCH          ?= .
BENCHCOUNT     ?= 10
BENCHFLAGS     ?=
KILLS          ?= 50

.DEFAULT_GOAL  := help
.PHONY: help build demo check fmt lint fix vet test test-deps test-unit test-e2e soak fuzz bench bench-go bench-compare tools clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The toolchain stamps the version from the repository's tags (carpool version shows it).
build: ## Build the static binary bin/carpool
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/carpool ./cmd/carpool

demo: ## Start a complete Carpool with a simulated API on 127.0.0.1:8080
	$(GO) run ./cmd/carpool demo

check: test-deps fmt vet lint ## Formatting, vet, all linters, static build, unit tests with -race, short fuzzing
	CGO_ENABLED=0 $(GO) build -trimpath -o /dev/null ./cmd/carpool
	@scripts/test unit
	@scripts/fuzz 5s

fmt: $(TOOLS)/gofumpt-$(GOFUMPT) ## Fail on files that gofumpt would change
	@files=$$($< -l cmd internal scripts test) && if [ -n "$$files" ]; then \
	  echo "gofumpt would change:"; echo "$$files"; exit 1; fi

vet: ## go vet
	$(GO) vet ./...

lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## golangci-lint (the first run builds it, about two minutes)
	$< run ./...

fix: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## Let the linters and gofumpt repair what they can
	$< run --fix ./...

test: test-deps fmt vet ## Everything: installs what tests need, then unit tests with -race and end-to-end tests
	@scripts/test

test-deps: ## Install what the tests need; does nothing when it is there
	@scripts/test-deps

test-unit: test-deps ## Only the unit tests, with -race; PKG=./internal/gateway/... narrows it
	@scripts/test unit $(PKG)

test-e2e: test-deps ## Only the end-to-end tests; RUN=TestName narrows it
	@scripts/test e2e $(RUN)

soak: ## Kill a server under load KILLS times (50) and reconcile its books, at most 10 minutes
	$(GO) test ./test/e2e -run '^TestKilled$$' -count 1 -timeout 15m -v -args -kills $(KILLS)

fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME)

bench: ## Measure Carpool beside other proxies, about 13 minutes; BENCHFLAGS='-rounds 1 -scenarios S1' narrows it, -h lists all
	@scripts/bench-deps
	PATH="$$PATH:/usr/sbin" $(GO) run ./test/bench -out bench.jsonl $(BENCHFLAGS)

bench-go: ## Run the Go benchmarks (BENCH=regexp, BENCHCOUNT=10) and write bench.out
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCHCOUNT) ./internal/... | tee bench.out

bench-compare: $(TOOLS)/benchstat-$(BENCHSTAT) ## Compare Go benchmarks, OLD=file with NEW=bench.out
	$< $(OLD) $(or $(NEW),bench.out)

tools: $(TOOLS)/gofumpt-$(GOFUMPT) $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) $(TOOLS)/benchstat-$(BENCHSTAT) ## Install the pinned tools into .tools

clean: ## Remove what was built; keeps .tools and .cache
	rm -rf bin bench.out bench.jsonl

# Each tool is installed once per version under a name that holds the version.
$(TOOLS)/gofumpt-$(GOFUMPT):
	@scripts/tool $@ mvdan.cc/gofumpt@$(GOFUMPT)

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	@scripts/tool $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

$(TOOLS)/benchstat-$(BENCHSTAT):
	@scripts/tool $@ golang.org/x/perf/cmd/benchstat@$(BENCHSTAT)
