/**
 * Base address registers of configuration space.
 *
 * Specified by: PCI Express base specification, 7.5.1.2.1.
 */

/** Reads configuration space: a little-endian register of `bytes` bytes at `offset`. */
interface ConfigReader {
  readConfig(offset: number, bytes: 1 | 2 | 4): number;
}

/** The address of a memory BAR on the bus, from configuration space. */
export function barBusAddress(device: ConfigReader, index: number): number {
  const low = device.readConfig(0x10 + 4 * index, 4);
  const high = (low & 6) === 4 ? device.readConfig(0x14 + 4 * index, 4) : 0;
  return high * 2 ** 32 + ((low & ~0xf) >>> 0);
}
