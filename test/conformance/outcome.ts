/** Words of every suite over the DMA API, on any host: what a call came to, and bytes that are told apart. */

/** What `call` threw, as [code, errno]; "ok" if nothing. */
export function outcome(call: () => unknown): readonly [code: string, errno: string] | "ok" {
  try {
    call();
  } catch (error) {
    const { code, errno } = error as { code?: string; errno?: string };
    if (code === undefined || errno === undefined) throw error;
    return [code, errno];
  }
  return "ok";
}

/** `length` bytes that differ from place to place and from `seed` to `seed`; never 0. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = 1 + ((i * 7 + (i >>> 8) * 13 + (i >>> 12) * 29 + seed * 31) % 255);
  return bytes;
}
