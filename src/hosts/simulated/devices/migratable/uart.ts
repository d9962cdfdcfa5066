/**
 * A serial port of the kind of the 16550 whose line leads back to itself: what is sent is received.
 *
 * It has the eight registers, a FIFO of 16 bytes, and a divisor behind the DLAB bit, and its whole state is one structure of 36
 * bytes, which is what moves to another machine. Not for: baud rates, parity, breaks.
 * Specified by: National Semiconductor PC16550D; the layout of the state is that of Linux's sample driver mtty, and so are
 * its habits: the trigger level is always 1, a FIFO that is full to the last byte looks empty, and an empty one gives 0.
 */

/** Bytes of a port's state. */
export const UART_STATE_BYTES = 36;
/** Bytes of the FIFO when it is on. */
const FIFO_BYTES = 16;

/** Registers, by offset. */
const REGISTER = { DATA: 0, IER: 1, FCR: 2, LCR: 3, MCR: 4, LSR: 5, MSR: 6, SCR: 7 } as const;

/** Places in the state; the registers come first. `divisor` has two bytes, and a byte of padding is last. */
const AT = {
  fifo: 8,
  head: 24,
  tail: 25,
  count: 26,
  dlab: 27,
  overrun: 28,
  divisor: 30,
  fcr: 32,
  fifoSize: 33,
  trigger: 34,
};

const IER = { received: 1, empty: 2, line: 4, modem: 8, readable: 0x0f } as const;
const IIR = { modem: 0, none: 1, empty: 2, received: 4, line: 6, fifo: 0xc0 } as const;
const LSR = { data: 1, overrun: 2, empty: 0x60 } as const;
const MSR = { ctsChanged: 1, dsrChanged: 2, cts: 0x10, dsr: 0x20, carrier: 0x80 } as const;
const FCR_CLEAR = 0x06;
const DLAB = 0x80;
const RTS_DTR = 0x03;
const OUT2 = 0x08;
const AUTO_FLOW = 0x20;

/** One serial port, looped back to itself. */
export class Uart {
  /** All that the port is. Another state may be put here. */
  readonly state: Uint8Array = new Uint8Array(UART_STATE_BYTES);
  readonly #interrupt: () => void;

  /** As after a reset. `interrupt` is called when its interrupt line rises. */
  constructor(interrupt: () => void = () => {}) {
    this.#interrupt = interrupt;
    this.state[AT.fifoSize] = FIFO_BYTES;
  }

  /** Registers above the last do nothing. */
  write(register: number, byte: number): void {
    const { state } = this;
    const value = byte & 0xff;
    switch (register) {
      case REGISTER.DATA:
        if (state[AT.dlab]) state[AT.divisor]! |= value;
        else this.#send(value);
        break;
      case REGISTER.IER:
        if (state[AT.dlab]) state[AT.divisor + 1]! |= value;
        else {
          state[REGISTER.IER] = value;
          if (value & IER.empty && this.#isEmpty) this.#interrupt();
        }
        break;
      case REGISTER.FCR:
        state[AT.fcr] = value;
        if (value & FCR_CLEAR) state.fill(0, AT.head, AT.count + 1);
        state[AT.trigger] = 1;
        state[AT.fifoSize] = value & 1 ? FIFO_BYTES : 1;
        break;
      case REGISTER.LCR:
        state[AT.dlab] = value & DLAB ? 1 : 0;
        if (value & DLAB) state.fill(0, AT.divisor, AT.divisor + 2);
        state[REGISTER.LCR] = value;
        break;
      case REGISTER.MCR:
        state[REGISTER.MCR] = value;
        if (state[REGISTER.IER]! & IER.modem) {
          if (value & OUT2) this.#interrupt();
          if (value & RTS_DTR) this.#interrupt();
        }
        break;
      case REGISTER.SCR:
        state[REGISTER.SCR] = value;
        break;
    }
  }

  /** Registers above the last give 0. */
  read(register: number): number {
    const { state } = this;
    switch (register) {
      case REGISTER.DATA:
        return state[AT.dlab] ? state[AT.divisor]! : this.#receive();
      case REGISTER.IER:
        return state[AT.dlab] ? state[AT.divisor + 1]! : state[REGISTER.IER]! & IER.readable;
      case REGISTER.FCR:
        return this.#pending() | IIR.fifo;
      case REGISTER.LCR:
      case REGISTER.MCR:
      case REGISTER.SCR:
        return state[register]!;
      case REGISTER.LSR:
        return (this.#isEmpty ? LSR.empty : LSR.data) | (state[AT.overrun] ? LSR.overrun : 0);
      case REGISTER.MSR: {
        const isHeld = state[REGISTER.MCR]! & AUTO_FLOW && state[AT.count]! >= state[AT.fifoSize]!;
        return MSR.dsr | MSR.dsrChanged | MSR.carrier | (isHeld ? 0 : MSR.cts | MSR.ctsChanged);
      }
      default:
        return 0;
    }
  }

  get #isEmpty(): boolean {
    return this.state[AT.head] === this.state[AT.tail];
  }

  #send(value: number): void {
    const { state } = this;
    const ier = state[REGISTER.IER]!;
    if (state[AT.count]! < state[AT.fifoSize]!) {
      const head = state[AT.head]! % FIFO_BYTES; // a state from elsewhere may have anything here
      state[AT.fifo + head] = value;
      state[AT.head] = (head + 1) % FIFO_BYTES;
      state[AT.count]!++;
      state[AT.overrun] = 0;
      if (ier & IER.received && state[AT.count] === state[AT.trigger]) this.#interrupt();
    } else {
      state[AT.overrun] = 1;
      if (ier & IER.line) this.#interrupt();
    }
  }

  #receive(): number {
    const { state } = this;
    let value = 0;
    if (!this.#isEmpty) {
      const tail = state[AT.tail]! % FIFO_BYTES;
      value = state[AT.fifo + tail]!;
      state[AT.tail] = (tail + 1) % FIFO_BYTES;
      state[AT.count]!--;
    }
    if (this.#isEmpty && state[REGISTER.IER]! & IER.empty) this.#interrupt();
    return value;
  }

  #pending(): number {
    const { state } = this;
    const ier = state[REGISTER.IER]!;
    let bits = 0;
    if (ier & IER.line && state[AT.overrun]) bits |= IIR.line;
    if (ier & IER.received && state[AT.count]! >= state[AT.trigger]!) bits |= IIR.received;
    if (ier & IER.empty && this.#isEmpty) bits |= IIR.empty;
    return bits === 0 ? IIR.none : bits;
  }
}
