/**
 * Lines of a call chain: one frame each.
 *
 * Specified by: ` => FUNCTION` of tracefs (with `+0x1/0x2` or `<ADDRESS>` as its options have it), `=> FUNCTION (ADDRESS)` of
 * trace-cmd report, and `\tADDRESS FUNCTION+0x1 (MODULE)` of perf script with any part left out.
 */
const NEWLINE = 10;
const RETURN = 13;
const TAB = 9;
const SPACE = 32;
const OPEN_PAREN = 40;
const PLUS = 43;
const SLASH = 47;
const EQUALS = 61;
const MORE = 62;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;

/** Where the name of a frame lies. */
export class Frame {
  from = 0;
  to = 0;
  /** A frame of user space, which is left out of the chain. */
  isUser = false;
  /** The address, where no name is known: [from, to) is that then. */
  isAddress = false;
  /** The module of the kernel that perf names, [moduleFrom, moduleTo); empty where it names none. */
  moduleFrom = 0;
  moduleTo = 0;

  /** A frame of tracefs or trace-cmd: `=> …`, anything in front of it only spaces. */
  readArrow(bytes: Uint8Array, start: number, newline: number): boolean {
    let at = start;
    while (bytes[at] === SPACE || bytes[at] === TAB) at++;
    if (bytes[at] !== EQUALS || bytes[at + 1] !== MORE) return false;
    at += 2;
    while (bytes[at] === SPACE) at++;
    this.isUser = false;
    this.isAddress = false;
    this.moduleTo = this.moduleFrom = 0;
    this.#name(bytes, at, newline);
    return true;
  }

  /** A frame of perf: begins with a space or a tab, and an address or a name. */
  readIndented(bytes: Uint8Array, start: number, newline: number): boolean {
    let at = start;
    while (at < newline && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
    if (at === start || at === newline) return false;
    const from = at;
    while (at < newline && isHex(bytes[at]!)) at++;
    const digits = at - from;
    const isAlone = at === newline || bytes[at] === RETURN;
    const hasAddress = digits > 0 && digits <= 16 && (bytes[at] === SPACE || isAlone);
    if (hasAddress) while (bytes[at] === SPACE) at++;
    else at = from;
    if (!hasAddress && bytes[start] !== TAB) return false;
    this.moduleTo = this.moduleFrom = 0;
    this.#name(bytes, at, newline);
    let dso = this.to;
    while (dso < newline && bytes[dso] !== OPEN_PAREN) dso++;
    const inDso = dso < newline ? bytes[dso + 1] : 0;
    if (inDso === OPEN_BRACKET) {
      this.moduleFrom = dso + 2;
      this.moduleTo = this.moduleFrom;
      while (this.moduleTo < newline && bytes[this.moduleTo] !== CLOSE_BRACKET) this.moduleTo++;
    }
    // A path, or nothing that perf knows: user space. The kernel and its modules are in brackets.
    this.isUser = inDso === SLASH || (hasAddress && digits < 16 && !(digits === 8 && bytes[from]! >= 0x63));
    this.isAddress = isAlone || bytes[this.from] === OPEN_BRACKET;
    if (this.isAddress && hasAddress) {
      this.from = from;
      this.to = from + digits;
    }
    return true;
  }

  /** The function, without the place in it. */
  #name(bytes: Uint8Array, from: number, newline: number): void {
    this.from = from;
    let at = from;
    while (at < newline && bytes[at]! > SPACE && bytes[at] !== NEWLINE) {
      if (bytes[at] === PLUS && bytes[at + 1] === 48 && bytes[at + 2] === 120) break;
      at++;
    }
    this.to = at;
  }
}

const isHex = (byte: number): boolean => (byte >= 48 && byte <= 57) || (byte >= 97 && byte <= 102);
