# Every target works on a fresh Debian machine that has Rust, gcc and make.
#
#   make demo    ten phones behind one NAT, calls in all directions, a table of what came of them
#   make test    everything that must hold: format, lints, documentation, all tests (needs root for namespaces)
#   make test-vm the same network tests on the kernels that routers have: Debian's 6.1 and 6.12
#   make fuzz    every fuzz target for FUZZ_SECONDS, with the stable compiler
#   make deb     a Debian package in target/debian
#   make test-package  the package installed, upgraded and purged in a Debian system of its own
#   make test-container  docker/ built and run: a call through a router in containers
#   make bench   how fast it is, beside plain forwarding and beside others

CARGO ?= cargo
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

PREFIX ?= /usr
DESTDIR ?=

.PHONY: demo test test-vm test-package test-container fuzz bench build deb generated install deps deps-test deps-deb deps-package lint doc

demo: deps build
	$(SUDO) target/release/sipalg lab

# The parts that look at the kernel build their own network namespaces, so they need root; none of them skips itself.
test: deps-test lint doc
	$(CARGO) test --locked
	SIPALG_TRIPS=1 $(CARGO) test --locked --test harm --test legal
	tests/vm/run.sh

# A part of `make test`: the lab and those tests on Debian's 6.1 and 6.12, in virtual machines. Needs no root. Others, or
# on one kernel only: make test-vm KERNELS=6.12 SUITES="shipped netns_clients:upkeep::". tests/vm/run.sh says more.
KERNELS ?= 6.1 6.12
test-vm: deps-test
	SUITES="$(SUITES)" tests/vm/run.sh $(KERNELS)

# Each time with another seed, from where the last run came to. The committed corpora are also replayed by `make test`.
FUZZ_SECONDS ?= 25
fuzz:
	.ci/fuzz $(FUZZ_SECONDS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@# The fuzz targets have a lock file of their own, which must follow this one's changes.
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --all-features

bench: deps-test
	$(CARGO) bench --locked

build: deps
	$(CARGO) build --locked --release

# Manual pages and completions, by the program itself, and the licences of what it is made of.
generated: build
	rm -rf target/generated
	target/release/sipalg generate target/generated
	.ci/licences >target/generated/licences

# By cargo-deb, which is built first where it is missing: without optimization, as it has little to do.
deb: export PATH := $(PATH):$(CURDIR)/target/tools/bin
deb: deps-deb generated
	command -v cargo-deb >/dev/null || $(CARGO) install --locked --debug --root target/tools cargo-deb@3.8.0
	$(CARGO) deb --no-build --dbgsym

# Not a part of `make test`, which would become too long, but of what must hold before a change lands (.ci/run): beside the
# release build it takes a Debian system from a mirror (debootstrap, once) and two minutes in a virtual machine.
# tests/vm/package.sh says more.
test-package: deps-package deb
	$(SUDO) tests/vm/package.sh

# Not a part of `make test` for the same reason. Podman and buildah work in a storage and a network of their own.
test-container: deps-package build
	$(SUDO) tests/container.sh

# After `make generated`. An existing configuration stays as it is.
install:
	install -D -m 755 target/release/sipalg $(DESTDIR)$(PREFIX)/sbin/sipalg
	install -D -m 644 nft-rules/sipalg.nft $(DESTDIR)$(PREFIX)/share/sipalg/sipalg.nft
	install -d $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 target/generated/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -D -m 644 target/generated/sipalg.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/sipalg
	install -D -m 644 target/generated/_sipalg $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_sipalg
	install -D -m 644 target/generated/sipalg.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sipalg.fish
	install -D -m 644 target/generated/licences $(DESTDIR)$(PREFIX)/share/doc/sipalg/licences
	install -D -m 644 src/daemon/sipalg.service $(DESTDIR)/usr/lib/systemd/system/sipalg.service
	install -D -m 644 src/daemon/sipalg.sysusers $(DESTDIR)/usr/lib/sysusers.d/sipalg.conf
	[ -e $(DESTDIR)/etc/sipalg/sipalg.toml ] || \
		install -D -m 644 src/config/sample.toml $(DESTDIR)/etc/sipalg/sipalg.toml

# What the program and the demo need, and what the tests need beside it; installed only where missing.
deps:
	.ci/deps build

deps-test:
	.ci/deps test

deps-deb:
	.ci/deps deb

deps-package:
	.ci/deps package
