/*
 * The native yardstick: the same work as a benchmark, written plainly in C from the specification.
 *
 * A case is a name and a function; `yardstick CASE UNITS` prints "ns units hash". The work, its random draws and its
 * hash are those of the benchmark of that name, so that equal hashes mean equal results. Preparation is not measured.
 * To add a case: write a function and put it in the table at the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct result {
	uint64_t ns;
	uint64_t units;
	uint32_t hash;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#define HASH 0x811c9dc5u
static uint32_t fold(uint32_t hash, uint32_t value)
{
	return (hash ^ value) * 0x01000193u;
}

/* ---- chance: xoshiro128** seeded by splitmix32, as src/base/random.ts ---- */

struct rng {
	uint32_t a, b, c, d;
};

static uint32_t rotate(uint32_t value, int amount)
{
	return (value << amount) | (value >> (32 - amount));
}

static uint32_t splitmix(uint32_t *state)
{
	uint32_t mixed;

	*state += 0x9e3779b9u;
	mixed = (*state ^ (*state >> 16)) * 0x21f0aaadu;
	mixed = (mixed ^ (mixed >> 15)) * 0x735a2d97u;
	return mixed ^ (mixed >> 15);
}

/* the stream of that name of a seed */
static struct rng rng_fork(uint32_t seed, const char *name)
{
	uint32_t state = seed ^ 0x811c9dc5u;
	struct rng r;

	for (; *name; name++)
		state = (state ^ (uint8_t)*name) * 0x01000193u;
	r.a = splitmix(&state);
	r.b = splitmix(&state);
	r.c = splitmix(&state);
	r.d = splitmix(&state) | 1;
	return r;
}

static uint32_t rng_below(struct rng *r, uint32_t limit)
{
	uint32_t bits = rotate(r->b * 5, 7) * 9, shifted = r->b << 9;

	r->c ^= r->a;
	r->d ^= r->b;
	r->b ^= r->c;
	r->a ^= r->d;
	r->c ^= shifted;
	r->d = rotate(r->d, 11);
	return (uint32_t)(((uint64_t)bits * limit) >> 32);
}

#define SEED 0x5eed

/* ---- IOVA: a linked list of ranges, walked gap by gap, with magazines in front ---- */

#define DMA32 ((uint64_t)1 << 20)
#define ANCHOR_PFN (~(uint64_t)0 >> 1)
#define MAGAZINE 127

struct range {
	int64_t lo, hi;
	struct range *below, *above;
};

struct magazine {
	int count;
	int64_t pfns[MAGAZINE];
};

struct space {
	struct range anchor, bottom;
	struct range *cached32, *cached, *spare;
	int64_t start, max32;
	struct magazine *loaded[6], *previous[6];
};

static void space_init(struct space *s)
{
	memset(s, 0, sizeof(*s));
	s->anchor.lo = s->anchor.hi = ANCHOR_PFN;
	s->bottom.lo = s->bottom.hi = -1;
	s->anchor.below = &s->bottom;
	s->bottom.above = &s->anchor;
	s->cached = s->cached32 = &s->anchor;
	s->start = 1;
	s->max32 = DMA32;
	for (int i = 0; i < 6; i++) {
		s->loaded[i] = calloc(1, sizeof(struct magazine));
		s->previous[i] = calloc(1, sizeof(struct magazine));
	}
}

static int log2_ceil(uint32_t value)
{
	return value <= 1 ? 0 : 32 - __builtin_clz(value - 1);
}

static struct range *tree_alloc(struct space *s, int64_t size, int64_t last)
{
	int64_t limit = last + 1, mask = -((int64_t)1 << log2_ceil((uint32_t)size));
	int low32 = limit <= (int64_t)DMA32;
	struct range *from = low32 ? s->cached32 : s->cached, *r;
	int64_t retry = from->hi, low = s->start;

	if (low32 && size >= s->max32)
		return NULL;
	for (int pass = 0; pass < 2; pass++) {
		for (r = from; r != &s->bottom; r = r->below) {
			int64_t high = r->lo < limit ? r->lo : limit;
			int64_t at = (high - size) & mask;

			if (at < low)
				break;
			if (at > r->below->hi) {
				struct range *n = s->spare;

				if (n)
					s->spare = n->below;
				else
					n = malloc(sizeof(*n));
				n->lo = at;
				n->hi = at + size - 1;
				n->above = r;
				n->below = r->below;
				n->below->above = n;
				r->below = n;
				if (n->hi < (int64_t)DMA32)
					s->cached32 = n;
				else
					s->cached = n;
				return n;
			}
		}
		if (retry >= limit)
			break;
		low = retry + 1;
		from = &s->anchor;
		while (low32 && from->below->lo >= limit)
			from = from->below;
	}
	s->max32 = size;
	return NULL;
}

static void tree_free(struct space *s, struct range *r)
{
	if (r == s->cached32 || (r->hi < (int64_t)DMA32 && r->lo >= s->cached32->lo))
		s->cached32 = r->above;
	if (r->lo < (int64_t)DMA32)
		s->max32 = DMA32;
	if (r->lo >= s->cached->lo)
		s->cached = r->above;
	r->above->below = r->below;
	r->below->above = r->above;
	r->below = s->spare;
	s->spare = r;
}

/* not inlined: a driver calls these across a module's border */
__attribute__((noinline)) static int64_t fast_alloc(struct space *s, uint32_t granules, int64_t last)
{
	int class = log2_ceil(granules);
	int64_t size = (int64_t)1 << class, limit = last + 1 - size;
	struct magazine *m = s->loaded[class];
	struct range *r;

	if (!m->count && s->previous[class]->count) {
		s->loaded[class] = s->previous[class];
		s->previous[class] = m;
		m = s->loaded[class];
	}
	for (int i = m->count - 1; i >= 0; i--) {
		int64_t pfn = m->pfns[i];

		if (pfn <= limit) {
			m->pfns[i] = m->pfns[--m->count];
			return pfn;
		}
	}
	r = tree_alloc(s, size, last);
	return r ? r->lo : 0;
}

__attribute__((noinline)) static void fast_free(struct space *s, int64_t pfn, uint32_t granules)
{
	int class = log2_ceil(granules);
	struct magazine *m = s->loaded[class];

	if (m->count == MAGAZINE) {
		s->loaded[class] = s->previous[class];
		s->previous[class] = m;
		m = s->loaded[class];
		if (m->count == MAGAZINE)
			exit(3); /* the cases here never fill both */
	}
	m->pfns[m->count++] = pfn;
}

static struct result iova_fast(uint64_t units, uint32_t largest)
{
	struct space s;
	uint32_t hash = HASH;
	uint64_t pairs = units / 2, start;

	space_init(&s);
	start = now_ns();
	for (uint64_t i = 0; i < pairs; i++) {
		uint32_t size = 1 + ((uint32_t)(i * 7) & (largest - 1));
		int64_t pfn = fast_alloc(&s, size, DMA32 - 1);

		fast_free(&s, pfn, size);
		hash = fold(hash, (uint32_t)pfn);
	}
	return (struct result){ now_ns() - start, pairs * 2, hash };
}

#define LIVE 1024

static struct result iova_tree(uint64_t units, uint32_t smallest, uint32_t largest)
{
	struct rng r = rng_fork(SEED, "load");
	struct range *live[LIVE];
	struct space s;
	uint32_t hash = HASH, kinds = largest - smallest + 1;
	uint64_t pairs = units / 2, start;

	space_init(&s);
	for (int i = 0; i < LIVE; i++)
		live[i] = tree_alloc(&s, smallest + rng_below(&r, kinds), DMA32 - 1);
	start = now_ns();
	for (uint64_t i = 0; i < pairs; i++) {
		uint32_t at = rng_below(&r, LIVE);

		tree_free(&s, live[at]);
		live[at] = tree_alloc(&s, smallest + rng_below(&r, kinds), DMA32 - 1);
		hash = fold(hash, (uint32_t)live[at]->lo);
	}
	return (struct result){ now_ns() - start, pairs * 2, hash };
}

static struct result iova_cached(uint64_t units) { return iova_fast(units, 1); }
static struct result iova_mixed(uint64_t units) { return iova_fast(units, 32); }
static struct result iova_tree_1(uint64_t units) { return iova_tree(units, 1, 1); }
static struct result iova_tree_mixed(uint64_t units) { return iova_tree(units, 1, 256); }
static struct result iova_tree_256(uint64_t units) { return iova_tree(units, 256, 256); }

/* ---- page tables: x86-64, four levels, from its specification ---- */

#define PT_ENTRIES 512
#define PT_FRAMES 4096
#define PT_LEAF 0x67u /* present, writable, user, accessed, dirty */
#define PT_TABLE 0x27u
#define PT_LARGE 0x80u
#define PT_ADDRESS 0x000ffffffffff000u

struct tables {
	uint64_t (*frames)[PT_ENTRIES];
	uint32_t spare[PT_FRAMES], waiting[PT_FRAMES];
	uint32_t spares, waits;
	uint64_t written, cleared; /* counted, as the benchmark counts */
};

/* the leaf table of the last page */
struct cursor {
	uint64_t first;
	uint64_t *table;
};

static uint32_t pt_frame(struct tables *t)
{
	uint32_t frame;

	if (t->spares == 0)
		exit(3); /* the cases here never use as many */
	frame = t->spare[--t->spares];
	memset(t->frames[frame], 0, sizeof(t->frames[frame]));
	return frame;
}

static struct tables *pt_new(void)
{
	struct tables *t = calloc(1, sizeof(*t));

	t->frames = calloc(PT_FRAMES, sizeof(*t->frames));
	for (uint32_t i = PT_FRAMES; i-- > 1;) /* frame 0 is the root */
		t->spare[t->spares++] = i;
	return t;
}

static uint64_t *pt_table(struct tables *t, uint64_t entry)
{
	return t->frames[(entry & PT_ADDRESS) >> 12];
}

/* the table at `level` that covers the page, made if need be; NULL where a large leaf is */
static uint64_t *pt_descend(struct tables *t, uint64_t page, int level)
{
	uint64_t *table = t->frames[0];

	for (int at = 3; at > level; at--) {
		uint64_t *entry = &table[(page >> (9 * at)) & 511];

		if (!(*entry & 1))
			*entry = (uint64_t)pt_frame(t) << 12 | PT_TABLE;
		else if (*entry & PT_LARGE)
			return NULL;
		table = pt_table(t, *entry);
	}
	return table;
}

static int pt_map_page(struct tables *t, struct cursor *c, uint64_t page, uint64_t phys)
{
	if (page - c->first >= PT_ENTRIES) {
		c->table = pt_descend(t, page, 0);
		c->first = page & ~(uint64_t)511;
		if (c->table == NULL)
			return -1;
	}
	if (c->table[page - c->first] & 1)
		return -1;
	c->table[page - c->first] = phys << 12 | PT_LEAF;
	t->written++;
	return 0;
}

static int pt_map(struct tables *t, uint64_t page, uint64_t phys, uint64_t pages)
{
	while (pages) {
		uint64_t both = page | phys;
		int level = pages >= 1 << 18 && !(both & ((1 << 18) - 1)) ? 2 : pages >= 512 && !(both & 511) ? 1 : 0;
		uint64_t size = (uint64_t)1 << (9 * level), left = pages / size, index = (page / size) & 511;
		uint64_t *table = pt_descend(t, page, level), count = PT_ENTRIES - index < left ? PT_ENTRIES - index : left;

		if (table == NULL)
			return -1;
		for (uint64_t i = 0; i < count; i++) {
			if (table[index + i] & 1)
				return -1;
			table[index + i] = (phys + i * size) << 12 | PT_LEAF | (level ? PT_LARGE : 0);
		}
		t->written += count;
		page += count * size;
		phys += count * size;
		pages -= count * size;
	}
	return 0;
}

/* unmaps [page, end) of a table; where it got to */
static uint64_t pt_clear(struct tables *t, uint64_t *table, int level, uint64_t page, uint64_t end)
{
	uint64_t size = (uint64_t)1 << (9 * level);

	for (uint64_t index = (page / size) & 511; page < end && index < PT_ENTRIES; index++) {
		uint64_t entry = table[index], next = (page | (size - 1)) + 1;

		if (!(entry & 1))
			break;
		if (level && !(entry & PT_LARGE)) {
			uint64_t reached = pt_clear(t, pt_table(t, entry), level - 1, page, end);

			if (reached < end && reached < next)
				return reached;
			if (page == next - size && end >= next) {
				table[index] = 0;
				t->waiting[t->waits++] = (uint32_t)((entry & PT_ADDRESS) >> 12);
			}
			page = reached;
			continue;
		}
		if (page != next - size)
			break;
		table[index] = 0;
		t->cleared++;
		page = next;
	}
	return page;
}

/* and gives the tables back that went, as after an invalidation */
static void pt_unmap(struct tables *t, uint64_t page, uint64_t pages)
{
	pt_clear(t, t->frames[0], 3, page, page + pages);
	while (t->waits)
		t->spare[t->spares++] = t->waiting[--t->waits];
}

static uint64_t pt_lookup(struct tables *t, uint64_t page)
{
	uint64_t *table = t->frames[0];

	for (int level = 3;; level--) {
		uint64_t entry = table[(page >> (9 * level)) & 511], inside = ((uint64_t)1 << (9 * level)) - 1;

		if (!(entry & 1))
			return ~(uint64_t)0;
		if (level == 0 || (entry & PT_LARGE))
			return ((entry & PT_ADDRESS) >> 12) + (page & inside);
		table = pt_table(t, entry);
	}
}

static uint32_t pt_hash(struct tables *t, uint32_t hash, uint64_t page, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		hash = fold(hash, (uint32_t)pt_lookup(t, page + i));
	return hash;
}

#define PT_RANGES 64
#define PT_FIRST 0xfc000
#define PT_PHYS 0x100000

static struct rng pt_pages(uint64_t *phys)
{
	struct rng r = rng_fork(SEED, "pages");

	for (int i = 0; i < 4096; i++)
		phys[i] = PT_PHYS + (uint64_t)rng_below(&r, 0x200000) * 2;
	return r;
}

static struct result pt_linked(uint64_t units, int vector)
{
	struct tables *t = pt_new();
	uint64_t phys[4096], requests = (units + 255) / 256, start;
	uint32_t hash = HASH;

	pt_pages(phys);
	start = now_ns();
	for (uint64_t request = 0; request < requests; request++) {
		uint64_t page = PT_FIRST + request % PT_RANGES * 256;
		const uint64_t *from = &phys[(request * 256) & 4095];
		struct cursor c = { ~(uint64_t)0 / 2, NULL };

		if (vector) {
			for (int i = 0; i < 256;) { /* one walk for each table's part */
				uint64_t *table = pt_descend(t, page + i, 0);
				int index = (page + i) & 511, count = 512 - index < 256 - i ? 512 - index : 256 - i;

				for (int n = 0; n < count; n++, i++) {
					if (table[index + n] & 1)
						exit(4);
					table[index + n] = from[i] << 12 | PT_LEAF;
				}
				t->written += count;
			}
		} else {
			for (int i = 0; i < 256; i++)
				if (pt_map_page(t, &c, page + i, from[i]))
					exit(4);
		}
		if (request == requests - 1)
			hash = pt_hash(t, hash, page, 256);
		pt_unmap(t, page, 256);
	}
	return (struct result){ now_ns() - start, requests * 256, hash };
}

static struct result pt_two_step(uint64_t units) { return pt_linked(units, 0); }
static struct result pt_vector(uint64_t units) { return pt_linked(units, 1); }

static struct result pt_512(uint64_t units)
{
	struct tables *t = pt_new();
	uint64_t requests = (units + 511) / 512, start = now_ns();
	uint32_t hash = HASH;

	for (uint64_t request = 0; request < requests; request++) {
		uint64_t page = PT_FIRST + (request & 31) * 512;

		if (pt_map(t, page, PT_PHYS + 1 + request * 2, 512))
			exit(4);
		if (request == requests - 1)
			hash = pt_hash(t, hash, page, 512);
		pt_unmap(t, page, 512);
	}
	return (struct result){ now_ns() - start, requests * 512, hash };
}

static struct result pt_superpage(uint64_t units)
{
	struct tables *t = pt_new();
	uint64_t requests = (units + 255) / 256, start = now_ns();
	uint32_t hash = HASH;

	for (uint64_t request = 0; request < requests; request++) {
		uint64_t page = 0x40000 + (request & 1) * 0x20000;

		if (pt_map(t, page, PT_PHYS + 512, 256 * 512))
			exit(4);
		if (request == requests - 1)
			hash = pt_hash(t, hash, page + 511, 1024);
		pt_unmap(t, page, 256 * 512);
	}
	return (struct result){ now_ns() - start, requests * 256, hash };
}

static struct result pt_lookups(uint64_t units, int random)
{
	struct tables *t = pt_new();
	struct cursor c = { ~(uint64_t)0 / 2, NULL };
	uint64_t phys[4096], start;
	static uint32_t asked[65536];
	struct rng r = pt_pages(phys);
	uint32_t hash = HASH, pages = PT_RANGES * 256;

	for (uint32_t i = 0; i < pages; i++)
		pt_map_page(t, &c, PT_FIRST + i, phys[i & 4095]);
	for (uint32_t i = 0; i < 65536; i++)
		asked[i] = PT_FIRST + (random ? rng_below(&r, pages) : i % pages);
	start = now_ns();
	for (uint64_t i = 0; i < units; i++)
		hash = fold(hash, (uint32_t)pt_lookup(t, asked[i & 65535]));
	return (struct result){ now_ns() - start, units, hash };
}

static struct result pt_lookup_random(uint64_t units) { return pt_lookups(units, 1); }
static struct result pt_lookup_sequential(uint64_t units) { return pt_lookups(units, 0); }

static struct result pt_relink(uint64_t units)
{
	struct tables *t = pt_new();
	struct cursor c = { ~(uint64_t)0 / 2, NULL };
	uint64_t phys[4096], start;
	uint32_t hash;

	pt_pages(phys);
	start = now_ns();
	for (int i = 0; i < 256; i++)
		pt_map_page(t, &c, PT_FIRST + i, phys[i]);
	for (uint64_t i = 0; i < units; i++) {
		uint64_t page = PT_FIRST + ((i * 97) & 255);

		pt_unmap(t, page, 1);
		pt_map_page(t, &c, page, phys[i & 4095]);
	}
	hash = pt_hash(t, HASH, PT_FIRST, 256);
	pt_unmap(t, PT_FIRST, 256);
	return (struct result){ now_ns() - start, units, hash };
}

/* ---- the table ---- */

static const struct {
	const char *name;
	struct result (*run)(uint64_t units);
} cases[] = {
	{ "iova-cached", iova_cached },
	{ "iova-mixed", iova_mixed },
	{ "iova-tree-1", iova_tree_1 },
	{ "iova-tree-mixed", iova_tree_mixed },
	{ "iova-tree-256", iova_tree_256 },
	{ "pt-two-step", pt_two_step },
	{ "pt-vector", pt_vector },
	{ "pt-512", pt_512 },
	{ "pt-superpage", pt_superpage },
	{ "pt-lookup-random", pt_lookup_random },
	{ "pt-lookup-sequential", pt_lookup_sequential },
	{ "pt-relink", pt_relink },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 3 && i < sizeof(cases) / sizeof(*cases); i++) {
		if (strcmp(argv[1], cases[i].name) == 0) {
			struct result r = cases[i].run(strtoull(argv[2], NULL, 10));

			printf("%llu %llu %u\n", (unsigned long long)r.ns, (unsigned long long)r.units, r.hash);
			return 0;
		}
	}
	fprintf(stderr, "usage: yardstick CASE UNITS; cases:");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		fprintf(stderr, " %s", cases[i].name);
	fprintf(stderr, "\n");
	return 2;
}
