/**
 * The mailbox of a device: data objects in, data objects out, one at a time.
 *
 * Idea: it is the host that carries them, so neither end believes an object because it came; what must not be changed or read on
 * the way is sealed inside. Promises: an answer for each object, or an error; nothing about what the answer says.
 * Specified by: PCI Express base specification 6.1, 6.30 (data object exchange).
 */
export interface Mailbox {
  /**
   * Sends an object and waits for the answer. Objects are those of `layouts/spdm` (`encodeObject`).
   *
   * @throws DmaError (rejects) if none comes: the device is gone, or has not answered in time
   */
  exchange(object: Uint8Array): Promise<Uint8Array>;
}
