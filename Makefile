# Everything this project does, by name. `make help` lists it. Each target does its own set-up: Go modules are fetched by
# go, and what else is missing is installed from Debian's packages when this runs as root (scripts/ensure.sh).

SHELL := /bin/sh
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/etherloom/etherloom/node.Version=$(VERSION)
BIN := bin
LINT := go tool -modfile=tools/lint/go.mod
PROTO := go tool -modfile=tools/proto/go.mod
# What measures time may fail on a machine that others use, too: up to three tests that failed are run again alone, twice at most, unless
# one panicked or raced. What fails then, fails. `make accept` repeats nothing.
REPEAT := go tool -modfile=tools/tests/go.mod gotestsum --format standard-quiet --rerun-fails=2 --rerun-fails-max-failures=3 \
	--rerun-fails-run-root-test --rerun-fails-abort-on-data-race
FUZZTIME ?= 60s
MUTATEJOBS ?= 1
PREFIX ?= /usr/local
# A Debian version starts with a digit.
DEBVERSION = $(if $(findstring .,$(VERSION)),$(VERSION:v%=%),0.0.0+$(VERSION))
GOFILES := $(shell git ls-files '*.go' 2>/dev/null | grep -v -e '\.pb\.go$$' -e '\.connect\.go$$')

.PHONY: help build test short e2e demo fuzz mutate bench cover lint fmt check accept install deb clean generate toolchain

help: ## List what can be made
	@grep -E '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

toolchain:
	@scripts/toolchain.sh

build: toolchain ## Build both programs into bin/
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/etherloom ./cmd/etherloom-controller

demo: build ## Show the main job on this machine, in network namespaces
	@scripts/ensure.sh ping:iputils-ping
	@$(BIN)/etherloom demo

test: toolchain ## Run every test, those in network namespaces included
	@scripts/ensure.sh gcc:gcc $(E2E_PROGRAMS)
	go test -timeout 50m ./...

short: toolchain ## Run the quick tests alone
	go test -short $$(go list ./... | grep -v -e /internal/e2e -e /internal/lab)

E2E_PROGRAMS := ping:iputils-ping arping:iputils-arping iperf3:iperf3 socat:socat dig:bind9-dnsutils dnsmasq:dnsmasq-base \
	dbus-daemon:dbus-daemon setpriv:util-linux arpspoof:dsniff atk6-fake_router26:thc-ipv6 nmap:nmap busybox:busybox \
	ovs-vswitchd:openvswitch-switch udhcpc:udhcpc jq:jq nft:nftables ethtool:ethtool

e2e: toolchain ## Run the end-to-end tests; one that cannot run is a failure
	@scripts/ensure.sh $(E2E_PROGRAMS)
	ETHERLOOM_E2E=1 go test -count=1 -timeout 50m ./internal/e2e ./internal/lab ./bridge ./dnsd/...

fuzz: toolchain ## Run every fuzz target for FUZZTIME (60s)
	@scripts/fuzz.sh $(FUZZTIME)

# Some minutes: the mutations of a package are compiled once, and each is asked of the tests that reach it. MUTATEJOBS at a time.
mutate: toolchain ## Delete each check on frames in turn; a test must fail for each
	go run ./tools/mutate -p $(MUTATEJOBS)

bench: build ## Measure Etherloom beside the peers that are installed
	@scripts/bench.sh

cover: toolchain ## Write coverage.out and print what it says of each package
	go test -coverprofile=coverage.out ./... && go tool cover -func=coverage.out | tail -n 1

lint: toolchain ## Check style, import rules, scripts, and that generated code is what it should be
	@scripts/ensure.sh shellcheck:shellcheck
	shellcheck -x scripts/*.sh scripts/admin/*.sh .ci/run
	$(LINT) golangci-lint run ./...
	go mod tidy -diff
	$(PROTO) buf lint
	$(PROTO) buf generate && git diff --exit-code -- control/controlv1

fmt: ## Format the code
	$(LINT) gofumpt -w $(GOFILES)

generate: ## Generate control/controlv1 anew
	$(PROTO) buf generate

check: lint ## What CI runs: lint, unit tests with the race detector, end to end, demo
	@scripts/ensure.sh gcc:gcc $(E2E_PROGRAMS)
	ETHERLOOM_E2E=1 $(REPEAT) --packages="$$(go list ./... | grep -v /internal/e2e | tr '\n' ' ')" -- -race -count=1 -timeout 25m
	$(REPEAT) --packages="./control/compile ./control/server ./policy" -- -count=1 -run 'TestLarge|TestLongChains' # what the race detector makes too slow
	$(MAKE) e2e-only demo

.PHONY: e2e-only
e2e-only:
	ETHERLOOM_E2E=1 $(REPEAT) --packages=./internal/e2e -- -count=1 -timeout 45m

accept: check ## Run every bar with its full counts and durations
	@scripts/ensure.sh qemu-system-x86_64:qemu-system-x86 busybox:busybox
	ETHERLOOM_E2E=1 ETHERLOOM_ACCEPT=1 ETHERLOOM_GUEST=$$(scripts/guest.sh) go test -count=1 -v -run TestGuest ./internal/lab
	ETHERLOOM_E2E=1 ETHERLOOM_ACCEPT=1 ETHERLOOM_GUEST=$$(scripts/guest.sh) go test -count=1 -timeout 30m -v -run TestInGuest ./bridge
	ETHERLOOM_E2E=1 ETHERLOOM_ACCEPT=1 ETHERLOOM_GUEST=$$(scripts/guest.sh) go test -count=1 -timeout 60m -v -run TestGuest ./internal/e2e
	ETHERLOOM_E2E=1 ETHERLOOM_E2E_RACE=1 go test -count=1 -timeout 60m ./internal/e2e
	ETHERLOOM_E2E=1 ETHERLOOM_ENDURANCE=10m go test -count=1 -timeout 20m -run TestEndurance ./internal/e2e
	ETHERLOOM_E2E=1 ETHERLOOM_ACCEPT=1 go test -count=1 -timeout 90m -v -run 'TestRevocationAtFifty|TestReceiverLimitsFloods|TestNeighboursStay|TestTakeover|TestGatewayThroughput|TestStorm|TestGatewayDies' ./internal/e2e
	ETHERLOOM_E2E=1 ETHERLOOM_FLIPS=1000 go test -count=1 -timeout 30m -v -run TestPolicyFlips ./internal/e2e
	$(MAKE) mutate fuzz bench

install: build ## Install the programs, systemd units and administrators' scripts under PREFIX (/usr/local), below DESTDIR
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(BIN)/etherloom $(BIN)/etherloom-controller
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system scripts/systemd/*.service
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/share/etherloom/scripts scripts/admin/*-*.sh
	install -m 644 -t $(DESTDIR)$(PREFIX)/share/etherloom/scripts scripts/admin/lib.sh scripts/admin/look.sh scripts/admin/address.sh
	sed -i 's,ExecStart=/usr/bin/,ExecStart=$(PREFIX)/bin/,' $(DESTDIR)$(PREFIX)/lib/systemd/system/etherloom*.service

deb: build ## Build the Debian package into bin/
	GOARCH=$$(go env GOARCH) VERSION=$(DEBVERSION) go tool -modfile=tools/package/go.mod nfpm package -f scripts/nfpm.yaml -p deb -t $(BIN)/

clean: ## Remove what was built
	rm -rf $(BIN) coverage.out
