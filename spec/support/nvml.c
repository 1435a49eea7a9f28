/* A management library as NVIDIA's driver has it, with the cards that a file beside it names: one
 * line for each, "MINOR UUID PRODUCT". For machines without such cards. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct card {
  unsigned minor;
  char uuid[96], product[96];
} cards[8];
static unsigned n;

int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
  FILE *f = fopen(CARDS, "r");
  if (!f) return 9; /* the driver is not loaded */
  while (n < 8 &&
         fscanf(f, "%u %95s %95[^\n]", &cards[n].minor, cards[n].uuid, cards[n].product) == 3)
    n++;
  fclose(f);
  if (n == 1 && strcmp(cards[0].product, "hangs") == 0) sleep(1000);
  if (n == 1 && strcmp(cards[0].product, "crashes") == 0) _exit(11);
  return 0;
}

int nvmlShutdown(void);
int nvmlShutdown(void)
{
  return 0;
}

int nvmlDeviceGetCount_v2(unsigned *ret);
int nvmlDeviceGetCount_v2(unsigned *ret)
{
  *ret = n;
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **ret);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **ret)
{
  *ret = &cards[i];
  return i < n ? 0 : 2;
}

int nvmlDeviceGetName(void *card, char *out, unsigned size);
int nvmlDeviceGetName(void *card, char *out, unsigned size)
{
  snprintf(out, size, "%s", ((struct card *)card)->product);
  return 0;
}

int nvmlDeviceGetUUID(void *card, char *out, unsigned size);
int nvmlDeviceGetUUID(void *card, char *out, unsigned size)
{
  snprintf(out, size, "%s", ((struct card *)card)->uuid);
  return 0;
}

int nvmlDeviceGetMinorNumber(void *card, unsigned *ret);
int nvmlDeviceGetMinorNumber(void *card, unsigned *ret)
{
  *ret = ((struct card *)card)->minor;
  return 0;
}
