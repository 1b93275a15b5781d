# Read by cpack once for each kind of package: what is Debian's alone is in debs alone.
if(CPACK_GENERATOR STREQUAL "RPM")
  list(GET CPACK_INSTALL_CMAKE_PROJECTS 0 tree)
  set(CPACK_INSTALL_CMAKE_PROJECTS)
  foreach(component daemons crispctl monitoring docs)
    list(APPEND CPACK_INSTALL_CMAKE_PROJECTS ${tree} crisp ${component} /)
  endforeach()
endif()
