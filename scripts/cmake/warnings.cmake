# crisp_options: the compile flags of every target of ours (never of generated code).
add_library(crisp_options INTERFACE)
target_compile_options(crisp_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Wold-style-cast -Werror
  # Partly designated initialisers are how our options structs are written.
  -Wno-missing-field-initializers
  # g++ 12 sees overruns in its own inlined std::string (GCC bugs 105329, 105651) that are not there.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overread;-Wno-stringop-overflow;-Wno-restrict>)
target_include_directories(crisp_options INTERFACE ${CMAKE_SOURCE_DIR})
# As gRPC's users have it: all alike, so that each may use any of the precompiled headers.
target_compile_options(crisp_options INTERFACE -pthread)

# Everything ends in position independent executables.
add_compile_options(-fPIE)
add_link_options($<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>)

# ccache and precompiled headers agree only so.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
endif()
