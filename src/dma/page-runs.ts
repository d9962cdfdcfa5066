/** Runs of pages for one vector link, physically adjacent ones joined. Used up before the call returns. */
class PageRuns {
  physPages: Float64Array = new Float64Array(256);
  pages: Int32Array = new Int32Array(256);
  count = 0;

  clear(): void {
    this.count = 0;
  }

  add(physPage: number, pages: number): void {
    const last = this.count - 1;
    if (last >= 0 && this.physPages[last]! + this.pages[last]! === physPage) {
      this.pages[last]! += pages;
      return;
    }
    if (this.count === this.pages.length) this.#grow();
    this.physPages[this.count] = physPage;
    this.pages[this.count++] = pages;
  }

  #grow(): void {
    const [physPages, pages] = [this.physPages, this.pages];
    this.physPages = new Float64Array(this.count * 2);
    this.pages = new Int32Array(this.count * 2);
    this.physPages.set(physPages);
    this.pages.set(pages);
  }
}

/** One is enough: no call that uses it calls another. */
export const RUNS: PageRuns = new PageRuns();
