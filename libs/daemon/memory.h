#pragma once

namespace crisp::daemon {

/// Few malloc arenas, and what is free goes back to the system early. Before any thread is made.
void LimitMemory();

/// Gives free heap back, and unmaps the pages of code and constants that this process has touched
/// (start-up reads most of them once, and the kernel maps their neighbours too). They come back
/// from the page cache as they are needed: some hundred cheap faults after a quiet time, for
/// megabytes that belong to the node's pods.
void ReleaseIdleMemory();

}  // namespace crisp::daemon
