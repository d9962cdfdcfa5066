/**
 * What a PCI function is called: `ssss:bb:dd.f` for people, one number on the bus.
 *
 * Specified by: PCI Express base specification, 2.2.6.2 (requester ID), with the segment above it.
 */

/** `ssss:bb:dd.f` as a requester id: segment, 16 bits; bus, 8; device, 5; function, 3. */
export function requesterId(bdf: string): number {
  const match = /^(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(bdf);
  if (!match) return Number.NaN;
  const [, segment = "0", bus, device, fn] = match;
  return (
    Number.parseInt(segment, 16) * 65_536 +
    Number.parseInt(bus!, 16) * 256 +
    Number.parseInt(device!, 16) * 8 +
    Number(fn)
  );
}

/** A requester id as `ssss:bb:dd.f`. */
export function requesterName(requester: number): string {
  const part = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");
  const low = requester % 65_536;
  return `${part(Math.floor(requester / 65_536), 4)}:${part(low >>> 8, 2)}:${part((low >>> 3) & 31, 2)}.${low & 7}`;
}
