/**
 * Format descriptions for written traces: the layout of three events as Linux 7.2 lays them out, and one with every kind
 * of field. For tests and benchmarks.
 */

const COMMON = `\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
`;

const describe = (system: string, name: string, id: number, fields: readonly string[], print: string) => ({
  system,
  text: `name: ${name}\nID: ${id}\nformat:\n${COMMON}\n${fields
    .map((field) => {
      const [declaration, offset, size, signed] = field.split(";");
      return `\tfield:${declaration};\toffset:${offset};\tsize:${size};\tsigned:${signed ?? 0};\n`;
    })
    .join("")}\nprint fmt: ${print}\n`,
});

interface SampleFormat {
  readonly system: string;
  readonly text: string;
}

export const SAMPLE_FORMATS: readonly SampleFormat[] = [
  describe(
    "dma",
    "dma_map_phys",
    382,
    [
      "__data_loc char[] device;8;4",
      "u64 phys_addr;16;8",
      "u64 dma_addr;24;8",
      "size_t size;32;8",
      "enum dma_data_direction dir;40;4",
      "unsigned long attrs;48;8",
    ],
    '"%s dir=%d dma_addr=%llx size=%zu phys_addr=%llx attrs=%lx", __get_str(device), REC->dir, REC->dma_addr, REC->size, REC->phys_addr, REC->attrs',
  ),
  describe(
    "iommu",
    "map",
    1319,
    ["u64 iova;8;8", "u64 paddr;16;8", "size_t size;24;8"],
    '"IOMMU: iova=0x%016llx - 0x%016llx paddr=0x%016llx size=%zu", REC->iova, REC->iova + REC->size, REC->paddr, REC->size',
  ),
  describe(
    "iommu",
    "unmap",
    1318,
    ["u64 iova;8;8", "size_t size;16;8", "size_t unmapped_size;24;8"],
    '"IOMMU: iova=0x%016llx - 0x%016llx size=%zu unmapped_size=%zu", REC->iova, REC->iova + REC->size, REC->size, REC->unmapped_size',
  ),
  describe(
    "sample",
    "every_kind",
    900,
    [
      "u8 tiny;8;1",
      "s8 small;9;1;1",
      "short half;10;2;1",
      "int word;12;4;1",
      "s64 wide;16;8;1",
      "char name[8];24;8;1",
      "u16 pair[2];32;4",
      "__data_loc char[] text;36;4",
      "__data_loc u64[] longs;40;4",
      "__rel_loc int[] ints;44;4;1",
      "__rel_loc char[] note;48;4",
    ],
    '"%d", REC->word',
  ),
];
