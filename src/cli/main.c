/* The program: picks a command and runs it. */
#include <stdio.h>

int main(void)
{
  puts("regolith " REGOLITH_VERSION);
  return 0;
}
