/* SPDX-License-Identifier: MIT */
/*
 * In place of libgupnp-igd-1.0.so.4, for one process of tests/browser/test_tools.py: no UPnP.
 *
 * Debian 12's whip-client is linked with libsoup 2.  libnice asks routers for ports by libgupnp-igd,
 * which brings libsoup 3, and that one ends a process that has both ("libsoup2 symbols detected").
 * These four are all that libnice has of libgupnp-igd; where there is no thread for UPnP, it goes
 * without.  Everything else in the process is Debian's.
 */
#include <stddef.h>

size_t gupnp_simple_igd_get_type(void);
void *gupnp_simple_igd_thread_new(void);
void gupnp_simple_igd_add_port(void);
void gupnp_simple_igd_remove_port_local(void);

size_t gupnp_simple_igd_get_type(void)
{
    return 0;
}

void *gupnp_simple_igd_thread_new(void)
{
    return NULL;
}

void gupnp_simple_igd_add_port(void)
{
}

void gupnp_simple_igd_remove_port_local(void)
{
}
