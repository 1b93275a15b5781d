# Read by cpack once for each kind of package: what is Debian's alone is in debs alone, and each package has a summary of its own.
unset(CPACK_PACKAGE_DESCRIPTION_SUMMARY)
if(CPACK_GENERATOR STREQUAL "RPM")
  list(FILTER CPACK_COMPONENTS_ALL EXCLUDE REGEX "^debian")
endif()
