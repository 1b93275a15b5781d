// Says as whom it runs. In its image it is root's and set-user-ID, so it tells whether that bit
// still counted.
#include <unistd.h>

#include <cstdio>

int main() { std::printf("Effective uid: %u\n", ::geteuid()); }
