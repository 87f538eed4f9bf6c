# make demo    sets everything up on a fresh Debian 12 and runs the main job
# make test    sets everything up and passes the tests
#
# Both work from a clean clone, as root, with nothing preinstalled but Debian, Python and git.
# The other targets are steps of these two.

VENV := .venv
PY := $(VENV)/bin/python
SYSTEM_PYTHON := /usr/bin/python3
STAMPS := build/stamps

DEBS := gcc make clang llvm clang-format libclang-rt-14-dev libc6-dev linux-libc-dev pkg-config \
	libbpf-dev libxdp-dev libelf-dev zlib1g-dev libipsec-mb-dev libssl-dev libsrtp2-dev \
	bpftool ethtool iproute2 procps git python3 python3-venv python3-dev

# What `vcfwd flame` samples with; without them it says what is missing.
FLAME_DEBS := python3-bpfcc linux-headers-$(shell dpkg --print-architecture) linux-perf libc6-dbg

# The browsers of `make demo-browser`, and GStreamer for tests/browser; nothing else needs them.
BROWSER_DEBS := chromium firefox-esr coturn fonts-dejavu-core python3-gi gir1.2-gst-plugins-bad-1.0 \
	gstreamer1.0-nice gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
	simple-whip-client

.PHONY: all setup debs venv build native ebpf dataplane demo test lint fuzz clean
.DEFAULT_GOAL := all

all: build

# ---- set-up ---------------------------------------------------------------------------------

setup: debs venv

# Installs what is missing of the Debian packages $1.  Who is not root is told to run `make $2`, or
# goes on without them where $2 is empty.
define need_debs
	@mkdir -p $(STAMPS)
	@missing=""; for p in $(1); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
	  echo "installing:$$missing" >&2; \
	  apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >&2; \
	elif [ -n "$$missing" ] && [ -n "$(2)" ]; then \
	  echo "These Debian packages are missing:$$missing. Run 'make $(2)' as root once." >&2; exit 1; fi
	@touch $@
endef

debs: $(STAMPS)/debs
$(STAMPS)/debs: Makefile
	$(call need_debs,$(DEBS),debs)

flame-deps: $(STAMPS)/flame-debs
$(STAMPS)/flame-debs: Makefile $(STAMPS)/debs
	$(call need_debs,$(FLAME_DEBS),)
.PHONY: flame-deps

browser-debs: $(STAMPS)/browser-debs
$(STAMPS)/browser-debs: Makefile $(STAMPS)/debs
	$(call need_debs,$(BROWSER_DEBS),browser-debs)
.PHONY: browser-debs

venv: $(STAMPS)/venv
$(STAMPS)/venv: requirements.lock pyproject.toml $(STAMPS)/debs
	test -x $(PY) || $(SYSTEM_PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Renews requirements.lock from pyproject.toml (needs the network; not part of any other target).
lock:
	$(PY) -m piptools compile -q --all-extras --generate-hashes --allow-unsafe --strip-extras \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o requirements.lock pyproject.toml
.PHONY: lock

# ---- build ----------------------------------------------------------------------------------

build: setup dataplane ebpf native demo-bpf

# The second one is the test build, in which a worker hangs on demand (vcfwd demo --chaos worker).
dataplane: $(STAMPS)/debs
	$(MAKE) -s -C c_helpers
	$(MAKE) -s -C c_helpers FAULTS=1
	$(MAKE) -s -C perf generator

ebpf: $(STAMPS)/debs
	$(MAKE) -s -C ebpf

# What the browser lab does to datagrams: losses, a NAT; no part of a node.
demo-bpf: build/demo/loss.bpf.o build/demo/nat.bpf.o
.PHONY: demo-bpf
build/demo/%.bpf.o: forwarder/demo/browser/%.bpf.c $(STAMPS)/debs
	@mkdir -p build/demo
	clang -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -idirafter /usr/include/$$(gcc -dumpmachine) -c $< -o $@

native: $(STAMPS)/native
$(STAMPS)/native: $(STAMPS)/venv c_helpers/ffi_bpf_build.py c_helpers/ffi_ring_build.py c_helpers/include/vcfwd/abi.h \
		c_helpers/include/vcfwd/drop.h ebpf/abi.h $(wildcard c_helpers/src/bpf_*) \
		$(wildcard c_helpers/src/ring*) c_helpers/src/shm.c
	$(PY) c_helpers/ffi_bpf_build.py
	$(PY) c_helpers/ffi_ring_build.py
	@touch $@

# ---- run ------------------------------------------------------------------------------------

demo: build
	$(VENV)/bin/vcfwd demo

demo-browser: build browser-debs
	$(VENV)/bin/vcfwd demo-browser
.PHONY: demo-browser

# ---- package --------------------------------------------------------------------------------

# Debian packages in build/deb/SUITE, their paths as the last two lines: configs/debian/README.md.
SUITE ?= trixie
deb: deb-deps
	@$(SYSTEM_PYTHON) configs/debian/deb.py --suite $(SUITE) $(if $(VERSION),--version $(VERSION))

DEB_DEBS := mmdebstrap dpkg-dev python3 git
deb-deps: $(STAMPS)/deb-debs
$(STAMPS)/deb-debs: Makefile
	$(call need_debs,$(DEB_DEBS),deb-deps)
.PHONY: deb deb-deps

# ---- test -----------------------------------------------------------------------------------

FUZZ_SECONDS ?= 5

test: build lint browser-debs flame-deps perf-deps deb-deps
	$(MAKE) -s -C tests/c check check-asan check-tsan
	$(MAKE) -s -C tests/c fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)
	VCFWD_BROWSER_QUICK=1 $(PY) -m pytest
	$(MAKE) -s lab-quick

# The tests of the packages for one release: SUITE=bookworm is Debian 12.
test-deb: $(STAMPS)/venv deb-deps
	VCFWD_DEB_SUITE=$(SUITE) $(PY) -m pytest tests/deb
.PHONY: test-deb

# All the browser tests, as plain pytest runs them; `make test` skips the long ones and names them.
test-browser-all: build browser-debs
	$(PY) -m pytest tests/browser
.PHONY: test-browser-all

# What the performance rig needs: rtpengine (its service left off), the baselines, its own tools.
perf-deps: debs
	$(MAKE) -s -C perf deps
.PHONY: perf-deps

# Every suite in full, its records appended to perf/results, the plots drawn anew: an hour, on a
# machine that does nothing else.  A scheduling group of its own keeps other sessions' work out.
PERF_SUITES := capacity matrix jitter latency footprint control
perf-record: build perf-deps
	@failed=""; for suite in $(PERF_SUITES); do \
	  timeout 900 setsid --wait sh -c '(echo -15 > /proc/self/autogroup) 2>/dev/null; exec "$$@"' sh \
	    $(PY) -m perf $$suite || failed="$$failed $$suite"; done; \
	$(PY) -m perf.bench.plots && test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
.PHONY: perf-record

lint: $(STAMPS)/venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The emulated bare-metal node: QEMU, zero-copy, two NUMA nodes (tests/lab/README.md).
lab-deps: debs deb-deps
	@$(SYSTEM_PYTHON) tests/lab/deps.py
lab: build lab-deps
	@$(PY) -m tests.lab
# Where QEMU cannot be installed its tests are skipped and say so.
lab-quick: build deb-deps
	@$(SYSTEM_PYTHON) tests/lab/deps.py || echo "lab-quick: skipped, see above" >&2
	$(PY) -m pytest tests/lab -m lab_quick
.PHONY: lab lab-quick lab-deps

clean:
	rm -rf build
