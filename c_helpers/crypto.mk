# SPDX-License-Identifier: MIT
# The SRTP engine: its sources and libraries for others to include, and its own targets.
#   make -f c_helpers/crypto.mk test-crypto       unit tests (gcc)
#   make -f c_helpers/crypto.mk test-crypto-san   the same under clang, ASan and UBSan
#   make -f c_helpers/crypto.mk fuzz-crypto       200,000 inputs for open_rtp and open_rtcp
#   make -f c_helpers/crypto.mk bench-crypto      ns a packet
VC_CRYPTO_SRCS := $(addprefix c_helpers/src/,crypto.c crypto_seal.c crypto_open.c crypto_kdf.c \
	crypto_imb.c crypto_evp.c)
VC_CRYPTO_HDRS := $(addprefix c_helpers/src/,crypto.h crypto_impl.h crypto_packet.h base.h)
VC_CRYPTO_LIBS := -lIPSec_MB -lcrypto

VC_CRYPTO_CFLAGS := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -g -Ic_helpers/include -Ic_helpers/src
VC_CRYPTO_SAN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
VC_CLANG ?= clang
VC_TEST_CRYPTO_SRCS := $(addprefix tests/c/,test_crypto.c test_crypto_vectors.c test_crypto_agree.c \
	test_crypto_libsrtp.c test_crypto_bad.c)
VC_TEST_CRYPTO_DEPS := $(VC_TEST_CRYPTO_SRCS) tests/c/test_crypto.h $(VC_CRYPTO_SRCS) $(VC_CRYPTO_HDRS)

build/c/test_crypto: $(VC_TEST_CRYPTO_DEPS)
	@mkdir -p $(@D)
	$(CC) $(VC_CRYPTO_CFLAGS) -Itests/c $(VC_TEST_CRYPTO_SRCS) $(VC_CRYPTO_SRCS) -o $@ $(VC_CRYPTO_LIBS) -lsrtp2

build/c/test_crypto_san: $(VC_TEST_CRYPTO_DEPS)
	@mkdir -p $(@D)
	$(VC_CLANG) $(VC_CRYPTO_CFLAGS) $(VC_CRYPTO_SAN) -Itests/c $(VC_TEST_CRYPTO_SRCS) $(VC_CRYPTO_SRCS) \
		-o $@ $(VC_CRYPTO_LIBS) -lsrtp2

build/c/test_srtp_index: tests/c/test_srtp_index.c c_helpers/src/srtp_index.h c_helpers/include/vcfwd/abi.h
	@mkdir -p $(@D)
	$(CC) $(VC_CRYPTO_CFLAGS) $(VC_CRYPTO_SAN) $< -o $@

build/c/fuzz_open: tests/fuzz/fuzz_open.c $(VC_CRYPTO_SRCS) $(VC_CRYPTO_HDRS)
	@mkdir -p $(@D)
	$(VC_CLANG) $(VC_CRYPTO_CFLAGS) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		$< $(VC_CRYPTO_SRCS) -o $@ $(VC_CRYPTO_LIBS)

build/perf/crypto_bench: perf/crypto_bench.c $(VC_CRYPTO_SRCS) $(VC_CRYPTO_HDRS)
	@mkdir -p $(@D)
	$(CC) $(VC_CRYPTO_CFLAGS) -O3 $< $(VC_CRYPTO_SRCS) -o $@ $(VC_CRYPTO_LIBS)

.PHONY: test-crypto test-crypto-san fuzz-crypto bench-crypto
test-crypto: build/c/test_crypto build/c/test_srtp_index
	build/c/test_crypto
	build/c/test_srtp_index
test-crypto-san: build/c/test_crypto_san
	build/c/test_crypto_san
fuzz-crypto: build/c/fuzz_open
	build/c/fuzz_open -runs=200000 -max_len=1600 -len_control=0 -seed=1
bench-crypto: build/perf/crypto_bench
	build/perf/crypto_bench
