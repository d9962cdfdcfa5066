/** The Linux host as one of any: what it can do is what it says of itself. For a real kernel and for one made up. */
import { PAGE_SIZE } from "../../src/base/index.ts";
import { Dma } from "../../src/dma/index.ts";
import type { LinuxDevice, LinuxHost } from "../../src/hosts/linux/index.ts";
import type { AnyHost } from "./any-host.ts";

/** `copy` is the device's; `mask` the highest address that it can emit. */
export function anyLinuxHost(host: LinuxHost, device: LinuxDevice, mask: number, copy: AnyHost["copy"]): AnyHost {
  const { domain, name } = device;
  const dma = new Dma({ domain, name, machine: host.dmaMachine });
  dma.setMask(mask);
  dma.setCoherentMask(mask);
  return {
    dma,
    capabilities: host.capabilities,
    allocate: (bytes) => {
      const buffer = host.memory.allocate(Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE);
      return { phys: buffer.phys, free: () => buffer.free() };
    },
    copy,
    settle() {}, // nothing ever waits
    state: () => ({ mappings: domain.mappings, areas: domain.areaCount }),
  };
}
