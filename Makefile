# Everything a person or a machine does with this tree is a target here.
# `make` alone lists them.

GO       ?= go
GO_NEED  := 1.26
VERSION  ?= $(shell git -c safe.directory="$(CURDIR)" describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s
BENCH    ?= .
BENCHFLAGS ?=
PKG      ?= ./...
CACHE    := $(CURDIR)/.cache
TESTRUN  = $(CACHE)/bin/testrun -root $(CURDIR)

# Labs and network namespaces need root.
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)

export GO

.DEFAULT_GOAL := help
.PHONY: help go-version build generate check unit conformance kernel-test lab-test \
	vm-test fuzz bench upgrade-drill demo test deps deps-list size clean testrun

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed 's/:.*## /\t/' | expand -t 16

go-version:
	@have=$$($(GO) env GOVERSION 2>/dev/null | sed 's/^go//; s/ .*//'); \
	if [ -z "$$have" ]; then have="none that can read go.mod ($$($(GO) version 2>/dev/null || echo 'no go command'))"; \
	elif [ "$$(printf '%s\n' $(GO_NEED) "$$have" | sort -V | head -n1)" = $(GO_NEED) ]; then exit 0; fi; \
	echo "Brindle needs Go $(GO_NEED) or newer; found: $$have. Get it from https://go.dev/dl and put it first in PATH, or run make GO=/path/to/go." >&2; exit 1

build: go-version ## Build bin/brindle and bin/brindle-cni, both static
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/brindle ./cmd/brindle-cni

generate: go-version ## Write the generated files anew
	$(GO) generate ./...

check: go-version ## Layer 0: format, vet, staticcheck, house rules, generated files, known vulnerabilities
	@tools/check.sh

unit: testrun ## Layers 1 to 3: every package alone, with the race detector where gcc is (PKG=./internal/x to narrow)
	$(TESTRUN) -packages '$(PKG)' unit

conformance: testrun ## Layer 4: every store driver against the one suite
	$(TESTRUN) conformance

kernel-test: testrun ## Layer 5: every kernel target in network namespaces of its own (needs root)
	$(TESTRUN) kernel

lab-test: testrun build ## Layer 6: the stories of test/scenarios over several hosts (needs root)
	$(TESTRUN) lab

vm-test: testrun ## Layer 7: kernel tests on Debian's 6.1 and 6.12 kernels in a small VM
	$(TESTRUN) vm

fuzz: testrun ## Run each fuzz target for FUZZTIME (30s)
	$(TESTRUN) -fuzztime $(FUZZTIME) fuzz

bench: build ## Measure what docs/performance.md aims at (BENCH=quick: only see that it runs; BENCH=regexp: some; needs root)
	@CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -o $(CACHE)/bin/bench ./test/bench
	$(SUDO) $(CACHE)/bin/bench $(if $(filter quick,$(BENCH)),-quick,-only '$(BENCH)') $(BENCHFLAGS)

upgrade-drill: build ## Swap agents of FROM (a revision) and of this tree under probes (needs root)
	$(SUDO) tools/upgrade-drill.sh $(FROM)

demo: build ## Show a three-host network, its routes and who reaches whom; leaves nothing behind (needs root)
	$(SUDO) bin/brindle lab demo

test: testrun ## Everything that must pass: installs what is missing, then layers 0 to 7 (needs root)
	@test -z "$(SUDO)" || { echo 'make test needs root, for network namespaces and Debian packages: sudo env "PATH=$$PATH" make test' >&2; exit 1; }
	$(TESTRUN) -ci deps build check unit conformance kernel lab vm

deps: ## Install the Debian packages that the tests need and this machine lacks (needs root)
	@tools/deps.sh

deps-list: ## List those packages, and which are missing
	@tools/deps.sh --list

size: build ## Print the size and the start-up time of each binary
	@tools/size.sh bin/brindle bin/brindle-cni

clean: ## Remove what the build and the tests left in bin and .cache
	rm -rf bin .cache

testrun: go-version
	@mkdir -p $(CACHE)/bin
	@cd tools && CGO_ENABLED=0 $(GO) build -buildvcs=false -o $(CACHE)/bin/testrun ./testrun
