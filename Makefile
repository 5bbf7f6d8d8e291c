# Every target works on a fresh Debian machine that has Rust, gcc and make.
#
#   make demo    ten phones behind one NAT, calls in all directions, a table of what came of them
#   make test    everything that must hold: format, lints, documentation, all tests (needs root for namespaces)
#   make test-vm the same network tests on the kernels that routers have: Debian's 6.1 and 6.12
#   make fuzz    every fuzz target for FUZZ_SECONDS, with the stable compiler
#   make bench   how fast it is, beside plain forwarding and beside others

CARGO ?= cargo
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

PREFIX ?= /usr
DESTDIR ?=

.PHONY: demo test test-vm fuzz bench build install deps deps-test lint doc

demo: deps build
	$(SUDO) target/release/sipalg lab

# The parts that look at the kernel build their own network namespaces, so they need root; none of them skips itself.
test: deps-test lint doc
	$(CARGO) test --locked
	tests/vm/run.sh

# A part of `make test`: the lab and those tests on Debian's 6.1 and 6.12, in virtual machines. Needs no root. Others, or
# on one kernel only: make test-vm KERNELS=6.12 SUITES="shipped netns_clients:upkeep::". tests/vm/run.sh says more.
KERNELS ?= 6.1 6.12
test-vm: deps-test
	SUITES="$(SUITES)" tests/vm/run.sh $(KERNELS)

# Bounded; the committed corpora are also replayed by `make test`.
FUZZ_SECONDS ?= 25
fuzz:
	.ci/fuzz $(FUZZ_SECONDS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --all-features

bench: deps-test
	$(CARGO) bench --locked

build: deps
	$(CARGO) build --locked --release

# After `cargo build --release`. An existing configuration stays as it is.
install:
	install -D -m 755 target/release/sipalg $(DESTDIR)$(PREFIX)/sbin/sipalg
	install -D -m 644 nft-rules/sipalg.nft $(DESTDIR)$(PREFIX)/share/sipalg/sipalg.nft
	install -D -m 644 src/daemon/sipalg.service $(DESTDIR)/usr/lib/systemd/system/sipalg.service
	install -D -m 644 src/daemon/sysusers.conf $(DESTDIR)/usr/lib/sysusers.d/sipalg.conf
	[ -e $(DESTDIR)/etc/sipalg/sipalg.toml ] || \
		install -D -m 644 src/config/sample.toml $(DESTDIR)/etc/sipalg/sipalg.toml

# What the program and the demo need, and what the tests need beside it; installed only where missing.
deps:
	.ci/deps build

deps-test:
	.ci/deps test
