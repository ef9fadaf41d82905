# The two that matter: "make run" and "make test". "make help" lists all.

GO       ?= go
PREFIX   ?= /usr/local
BINDIR   ?= $(PREFIX)/bin
SHAREDIR ?= $(PREFIX)/share
UNITDIR  ?= $(PREFIX)/lib/systemd/system
LIBEXECDIR ?= $(PREFIX)/libexec/mobileops
DOCDIR   ?= $(SHAREDIR)/doc/mobileops

# A release is a tag; anything else says which commit it is.
VERSION  ?= $(shell git describe --tags --exact-match 2>/dev/null | sed 's/^v//')
# Without git, or in a clone that belongs to somebody else, there is no commit
# to record, and go build would refuse.
VCS      := $(shell git rev-parse --verify HEAD >/dev/null 2>&1 && echo true || echo false)
LDFLAGS  := -s -w $(if $(VERSION),-X github.com/mobileops/mobileops/internal/buildinfo.version=$(VERSION))

# One static binary.
export CGO_ENABLED = 0

# What links Trivy needs an experiment of Go. With other flags than these, all of
# its 2000 packages would be compiled again.
TRIVY    := GOEXPERIMENT=jsonv2 $(GO) build -trimpath -buildvcs=false

.PHONY: help run build bundle scan-worker trivy release test test-unit lint race fuzz generate check-generated bench-integrity bench-logs bench-network bench-update bench-plugin bench-scan install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What it keeps is in .run, so trying it out leaves nothing on the machine.
run: build ## take a baseline of this machine's system files if there is none, and check them
	@MOBILEOPS=bin/mobileops \
	 MOBILEOPS_STATE_DIR='$(CURDIR)/.run/state' \
	 MOBILEOPS_LOG_DIR='$(CURDIR)/.run/log' \
	 MOBILEOPS_RUN_DIR='$(CURDIR)/.run/run' \
	 packaging/examples/first-check

# The program that makes them runs here, whatever the plugins are built for. A
# release sets MOBILEOPS_PLUGIN_KEY (docs/formats/plugin-catalogue.md).
bundle: ## build, pack and sign the plugins that come with mobileops, when they changed
	@command -v $(GO) >/dev/null || { echo 'Go is needed: see the line "go" in go.mod for the version' >&2; exit 1; }
	@GO='$(GO)' GOOS="$$($(GO) env GOHOSTOS)" GOARCH="$$($(GO) env GOHOSTARCH)" \
		$(GO) run ./internal/plugin/catalogue/bundle-tool -root . -goos "$$($(GO) env GOOS)" -goarch "$$($(GO) env GOARCH)"

# With BUNDLE_SCAN=1 it has bin/mobileops-scan within itself.
build: bundle $(if $(BUNDLE_SCAN),scan-worker) ## build bin/mobileops
ifdef BUNDLE_SCAN
	GOOS= GOARCH= $(GO) run ./internal/scan/worker/bundle-tool
endif
	$(GO) build -trimpath -buildvcs=$(VCS) -ldflags '$(LDFLAGS)' $(if $(BUNDLE_SCAN),-tags bundled_scan) -o bin/mobileops ./cmd/mobileops

# Compiling Trivy takes some minutes, once. Go knows when nothing changed.
scan-worker: ## build bin/mobileops-scan, without which mobileops does not scan
	$(TRIVY) -ldflags '$(LDFLAGS)' -o bin/mobileops-scan ./cmd/mobileops-scan

trivy: ## build .cache/trivy, Trivy's own command, with which scans are compared
	@mkdir -p .cache
	$(TRIVY) -ldflags '-s -w' -o .cache/trivy github.com/aquasecurity/trivy/cmd/trivy

release: ## build bin/mobileops with mobileops-scan within itself
	@$(MAKE) --no-print-directory build BUNDLE_SCAN=1

test: bundle scan-worker trivy ## install what the tests need, and run all of them
	@.ci/test-tools
	@mkdir -p .cache
	GO='$(GO)' $(GO) tool gotestsum --format pkgname $$(.ci/again) --jsonfile .cache/tests.json --raw-command -- .ci/test-json

test-unit: bundle ## run the tests that take little time, with what is installed
	$(GO) test -short ./...

lint: ## format, vet, staticcheck, layout of the house
	@test -z "$$(gofmt -l bench cmd internal pkg packaging plugins plugins)" || { gofmt -l bench cmd internal pkg packaging plugins plugins; echo 'not formatted: gofmt -w' >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	GO='$(GO)' .ci/check-tagged --staticcheck
	$(GO) test ./internal/architecture

race: bundle ## run the tests with the race detector (needs a C compiler)
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race -short -timeout 30m -skip '^TestStartsFast$$' ./...

fuzz: ## run every fuzz target, FUZZ seconds in all (default 300)
	.ci/fuzz $(or $(FUZZ),300)

generate: ## write man pages, reference, completions and the example configuration again
	$(GO) generate ./...

check-generated: ## fail when a generated file is stale
	.ci/check-generated

bench-integrity: build ## measure check and verify beside b3sum, aide and a plain read
	$(GO) run ./bench/integrity -mobileops bin/mobileops $(BENCH)

CORPUS ?= /tmp/mobileops-bench-logs
bench-logs: build ## measure logs beside ripgrep, zstd, journalctl and age, on the *.log files in CORPUS (see docs/benchmarks.md)
	@ls '$(CORPUS)'/*.log >/dev/null || { echo 'make the corpus first: docs/benchmarks.md says how' >&2; exit 1; }
	$(GO) run ./bench/logs/search -mobileops bin/mobileops '$(CORPUS)'
	$(GO) run ./bench/logs/files '$(CORPUS)'
	$(GO) run ./bench/logs/journal
	$(GO) run ./bench/logs/seal
	$(GO) run ./bench/logs/collect '$(CORPUS)'/*.log

bench-network: build ## measure network beside nft, iptables, ufw, firewalld, ipset and dnsmasq, in namespaces (needs root)
	$(GO) run ./bench/network/start bin/mobileops
	$(GO) run ./bench/network/isolate -mobileops bin/mobileops $(BENCH)
	$(GO) run ./bench/network/feeds -mobileops bin/mobileops
	$(GO) run ./bench/network/cut
	$(GO) run ./bench/network/policy -nft
	$(GO) run ./bench/network/services

bench-update: build ## measure update and rollback beside the script that was, ostree and dpkg (needs root and 6 GB)
	$(GO) run ./bench/update/apply -mobileops bin/mobileops $(BENCH)
	$(GO) run ./bench/update/pack

bench-plugin: build ## measure plugins: a sandboxed call beside a plain one, lists, the forwarder (needs root)
	$(GO) run ./bench/plugin/call
	$(GO) run ./bench/plugin/list -mobileops bin/mobileops
	$(GO) run ./bench/plugin/forward $(BENCH)

bench-scan: build scan-worker trivy ## measure scans beside Trivy's own command: secrets, licences, a system, eight at once (needs 2 GB)
	$(GO) run ./bench/scan -trivy .cache/trivy -worker bin/mobileops-scan -mobileops bin/mobileops $(BENCH)

bin/mobileops:
	@$(MAKE) --no-print-directory build

# Nothing below /etc and /var is touched. The units name the binary where it is
# installed. It takes the binary that is there: root need not have Go.
install: bin/mobileops ## install below DESTDIR/PREFIX (default /usr/local)
	install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(DOCDIR)/examples' \
		'$(DESTDIR)$(SHAREDIR)/man/man1' '$(DESTDIR)$(SHAREDIR)/man/man5' \
		'$(DESTDIR)$(SHAREDIR)/bash-completion/completions' \
		'$(DESTDIR)$(SHAREDIR)/zsh/site-functions' \
		'$(DESTDIR)$(SHAREDIR)/fish/vendor_completions.d'
	install -m 755 bin/mobileops '$(DESTDIR)$(BINDIR)/mobileops'
	@if [ -e bin/mobileops-scan ]; then \
		install -d '$(DESTDIR)$(LIBEXECDIR)' && install -m 755 bin/mobileops-scan '$(DESTDIR)$(LIBEXECDIR)/mobileops-scan'; \
	else \
		echo 'without mobileops-scan, and so without scans: make scan-worker builds it' >&2; \
	fi
	install -m 644 completions/mobileops.bash '$(DESTDIR)$(SHAREDIR)/bash-completion/completions/mobileops'
	install -m 644 completions/_mobileops '$(DESTDIR)$(SHAREDIR)/zsh/site-functions/_mobileops'
	install -m 644 completions/mobileops.fish '$(DESTDIR)$(SHAREDIR)/fish/vendor_completions.d/mobileops.fish'
	install -m 644 docs/man/*.1 '$(DESTDIR)$(SHAREDIR)/man/man1/'
	install -m 644 docs/man/*.5 '$(DESTDIR)$(SHAREDIR)/man/man5/'
	install -m 644 LICENSE README.md CHANGELOG.md '$(DESTDIR)$(DOCDIR)/'
	install -m 644 packaging/config.yaml packaging/examples/policy.yaml packaging/examples/isolation-profile.yaml \
		packaging/examples/package.yaml packaging/examples/people.yaml packaging/examples/license-policy.yaml '$(DESTDIR)$(DOCDIR)/examples/'
	install -m 755 packaging/examples/first-check '$(DESTDIR)$(DOCDIR)/examples/first-check'
	install -m 644 packaging/cron/mobileops '$(DESTDIR)$(DOCDIR)/examples/cron'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-integrity-check.service >'$(DESTDIR)$(UNITDIR)/mobileops-integrity-check.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-watch.service >'$(DESTDIR)$(UNITDIR)/mobileops-watch.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-logs.service >'$(DESTDIR)$(UNITDIR)/mobileops-logs.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-logs-rotate.service >'$(DESTDIR)$(UNITDIR)/mobileops-logs-rotate.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-network.service >'$(DESTDIR)$(UNITDIR)/mobileops-network.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-isolation.service >'$(DESTDIR)$(UNITDIR)/mobileops-isolation.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-update.service >'$(DESTDIR)$(UNITDIR)/mobileops-update.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-update-apply@.service >'$(DESTDIR)$(UNITDIR)/mobileops-update-apply@.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-update-check.service >'$(DESTDIR)$(UNITDIR)/mobileops-update-check.service'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-scan.service >'$(DESTDIR)$(UNITDIR)/mobileops-scan.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/mobileops-scan.service'
	install -m 644 packaging/systemd/mobileops-scan.timer '$(DESTDIR)$(UNITDIR)/'
	sed 's#@BINDIR@#$(BINDIR)#' packaging/systemd/mobileops-plugins.service >'$(DESTDIR)$(UNITDIR)/mobileops-plugins.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/mobileops-isolation.service' '$(DESTDIR)$(UNITDIR)/mobileops-plugins.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/mobileops-update.service' '$(DESTDIR)$(UNITDIR)/mobileops-update-apply@.service' \
		'$(DESTDIR)$(UNITDIR)/mobileops-update-check.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/mobileops-watch.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/mobileops-integrity-check.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/mobileops-logs.service' '$(DESTDIR)$(UNITDIR)/mobileops-logs-rotate.service'
	install -m 644 packaging/systemd/mobileops-integrity-check.timer packaging/systemd/mobileops-logs-rotate.timer \
		'packaging/systemd/mobileops-update-apply@.timer' packaging/systemd/mobileops-update-check.timer '$(DESTDIR)$(UNITDIR)/'

clean: ## remove what was built here, and what make run keeps
	rm -rf bin .cache .run dist
	find internal/plugin/catalogue/bundle internal/scan/worker/bundled -type f ! -name README.md -delete
