# Every command of the project. `make help` lists the targets; the variables
# below change what they do: make test RACE=1, make fuzz FUZZTIME=1000000x.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
RACE     ?=# anything: tests run under the race detector, which needs a C compiler
SHORT    ?=# anything: benchmarks run once, after the tests that count allocations or memory, and what they found is not kept
SCENARIO ?=# ratelimit, proxy, registry or xds: bench runs these scenarios and nothing else
PROFILE  ?=# a directory: bench keeps CPU profiles of the services there, and says how they divide
FUZZTIME ?= 20000x

MODULES  := internal proto services/ratelimit services/discovery services/proxy integration
BINARIES := ./services/ratelimit/cmd/... ./services/discovery/cmd/... ./services/proxy/cmd/... ./integration/cmd/...
TEST     := $(if $(RACE),CGO_ENABLED=1) go test -timeout 30m $(if $(RACE),-race)

# Where tests find the Envoy that `make peers` installs, and what `make build`
# built, which they would build themselves otherwise. RATELIMIT_PEER, if set, is
# the binary of a rate limiter that has the settings of envoyproxy/ratelimit:
# conformance and bench hold ours against it.
export ENVOY ?= $(wildcard $(CURDIR)/bin/envoy)
e2e faults conformance bench: export WEIR_BINARIES := $(CURDIR)/bin

.PHONY: help build up down test peers e2e faults conformance bench fuzz generate lint fmt tools clean

help:
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build all binaries into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ $(BINARIES)

up: build ## start the demo and say what to try
	deploy/up

down: ## stop the demo
	deploy/down

# The import edges are tested a second time, uncached: Go's test cache does not
# see the packages that such a test lists.
test: ## run the tests that need only Go (RACE=1: under the race detector)
	$(TEST) $$(go list work | grep -vE '/integration/(e2e|faults|conformance|bench)$$')
	go test -count=1 -run '^TestImports$$' ./internal/archtest $(wildcard ./services/*/internal/app)

peers: ## install the programs that more tests use: redis-server, Envoy, grpcio, wrk, h2load, haproxy, nginx, chromium, promtool
	tools/peers

e2e: build ## test the three services together, as built binaries
	go test -count=1 -timeout 30m ./integration/e2e

faults: build ## test a registry of three replicas in faults, for three minutes; wants a machine that has nothing else to do
	go test -count=1 -timeout 30m ./integration/faults

conformance: export H2SPEC ?= $(CURDIR)/bin/h2spec
conformance: build bin/h2spec ## test the services against other people's programs
	go test -count=1 -timeout 30m ./integration/conformance

bench: build ## run all benchmarks; the scenarios write integration/bench/RESULTS.md
	$(if $(SCENARIO),,go test -run $(if $(SHORT),"$$(tools/counting $(MODULES))",'^$$') -bench . -benchmem -benchtime $(if $(SHORT),1x,1s) \
		$$(grep -rlE --include='*_test.go' '^func Benchmark|servicetest\.Alloc' $(MODULES) | xargs -n 1 dirname | grep -v '^integration/bench$$' | sort -u | sed 's|^|./|'))
	SCENARIO=$(SCENARIO) PROFILE=$(abspath $(PROFILE)) go test -bench . -benchtime 1x -timeout 1h $(if $(SHORT),-short) ./integration/bench

# A number of runs, since a time that ends while an input runs is reported as a
# failure now and then (golang/go#75804).
fuzz: ## run each fuzz target with FUZZTIME (20000x) inputs
	tools/fuzz $(FUZZTIME) $(MODULES)

generate: bin/buf bin/protoc-gen-go ## write the Go of proto/ and the proxy's page of supported fields anew
	bin/buf lint
	bin/buf generate
	go test -count=1 -run 'SupportedFields' ./services/proxy/internal/builtin -update

lint: bin/golangci-lint ## vet and lint everything
	go vet work
	bin/golangci-lint run --allow-parallel-runners $(MODULES:%=./%/...)

fmt: bin/golangci-lint ## format the Go files
	bin/golangci-lint fmt $(MODULES:%=./%/...)

# The tools' modules lie outside go.work: inside, they would lift what the
# services use to the versions that they want.
tools: bin/buf bin/golangci-lint bin/h2spec ## build the pinned developers' tools into bin/
bin/buf: tools/buf/go.mod
	cd tools/buf && GOWORK=off go build -o ../../bin/ tool
bin/golangci-lint: tools/go.mod
	cd tools && GOWORK=off go build -o ../bin/ tool
bin/h2spec: tools/h2spec/go.mod
	cd tools/h2spec && GOWORK=off go build -o ../../bin/ tool
bin/protoc-gen-go: bin/golangci-lint # built with it

clean: down ## end the demo, delete its state and what was built
	rm -rf bin .run
