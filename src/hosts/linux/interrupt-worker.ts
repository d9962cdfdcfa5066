/**
 * The worker that waits for interrupts: blocked in `poll` over eventfds, it counts what comes and wakes the main thread.
 *
 * Idea: as text, because it is plain JavaScript for a thread of its own, wherever the program was bundled to. Shared words:
 * number 0 changes with every wake-up, number 1 + slot counts the signals of that slot that nobody has taken yet. A signal of
 * the control eventfd means: read the messages, the last one says what to wait for (`[slot, fd]` each), none means the end. The
 * number of that message is put into the last word: from then on no earlier eventfd is looked at.
 */
export const INTERRUPT_WORKER = `
const { receiveMessageOnPort, workerData } = require("node:worker_threads");
const { readSync } = require("node:fs");
const { library, control, port, words } = workerData;
const poll = require(library).load(null).func("int poll(void *set, unsigned long count, int timeout)");
const state = new Int32Array(words);
const count = new Uint8Array(8);
const low = new DataView(count.buffer);
const READABLE = 1, ENTRY = 8;
const take = (fd) => { readSync(fd, count, 0, 8, null); return low.getUint32(0, true); };
let waiting = [];
for (let open = true; open; ) {
  const set = new Uint8Array((1 + waiting.length) * ENTRY);
  const view = new DataView(set.buffer);
  [[-1, control], ...waiting].forEach(([, fd], i) => {
    view.setInt32(i * ENTRY, fd, true);
    view.setInt16(i * ENTRY + 4, READABLE, true);
  });
  for (let same = true; same; ) {
    if (poll(set, 1 + waiting.length, -1) <= 0) continue;
    let woken = false;
    waiting.forEach(([slot, fd], i) => {
      const came = view.getInt16((i + 1) * ENTRY + 6, true);
      if (came & READABLE) {
        Atomics.add(state, 1 + slot, take(fd));
        woken = true;
      } else if (came !== 0) view.setInt32((i + 1) * ENTRY, -1, true);
    });
    if (woken) {
      Atomics.add(state, 0, 1);
      Atomics.notify(state, 0);
    }
    if (!(view.getInt16(6, true) & READABLE)) continue;
    take(control);
    same = false;
    for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
      if (got.message === null) open = false;
      else {
        waiting = got.message.waiting;
        Atomics.store(state, state.length - 1, got.message.number);
      }
    }
    Atomics.add(state, 0, 1);
    Atomics.notify(state, 0);
  }
}
port.close();
`;
