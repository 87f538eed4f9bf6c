"""Frequency: the workers' cores run at full speed, at once."""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step

_CPU = "/sys/devices/system/cpu"


class Governor(Stage):
    name = "governor"
    why = "a core that ramps up while a packet waits adds tens of microseconds"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for cpu in site.layout.cpus:
            here = f"text:{_CPU}/cpu{cpu}"
            found += self.steps(site, f"{here}/cpufreq/scaling_governor", "performance")
            found += self.steps(site, f"{here}/power/energy_perf_bias", "0")
        found += self.steps(site, f"text:{_CPU}/intel_pstate/min_perf_pct", "100")
        found += self.steps(site, f"text:{_CPU}/cpufreq/boost", "1")
        return self.found(found, "nobody can set frequencies here (so on virtual machines)")


STAGE = Governor()
