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
		uint32_t size = 1 + (uint32_t)(i * 7) % largest;
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
