# crisp_protos(NAME PROTO [DEPS other proto targets])
# Two libraries from one .proto: crisp::NAME_pb (messages) and crisp::NAME_grpc (services), generated into the build
# tree and included as system headers: `#include "cri/v1/api.pb.h"`. gRPC without TLS: it is spoken on unix sockets
# only, and libssl and libcrypto are 1 MB of private memory less in each daemon.
find_program(CRISP_PROTOC protoc REQUIRED)
find_program(CRISP_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)
set(CRISP_GEN ${CMAKE_BINARY_DIR}/gen)
file(MAKE_DIRECTORY ${CRISP_GEN})

function(crisp_protos name proto)
  cmake_parse_arguments(arg "" "" "DEPS" ${ARGN})
  string(REGEX REPLACE "\\.proto$" "" stem ${proto})
  set(outputs ${CRISP_GEN}/${stem}.pb.cc ${CRISP_GEN}/${stem}.pb.h
              ${CRISP_GEN}/${stem}.grpc.pb.cc ${CRISP_GEN}/${stem}.grpc.pb.h)
  add_custom_command(
    OUTPUT ${outputs}
    COMMAND ${CRISP_PROTOC} -I${CMAKE_SOURCE_DIR}/protos --cpp_out=${CRISP_GEN} --grpc_out=${CRISP_GEN}
            --plugin=protoc-gen-grpc=${CRISP_GRPC_PLUGIN} ${CMAKE_SOURCE_DIR}/protos/${proto}
    DEPENDS ${CMAKE_SOURCE_DIR}/protos/${proto}
    VERBATIM)
  # A target of its own: the .pb.h must be there before anybody includes it, whoever compiles first.
  add_custom_target(crisp_${name}_gen DEPENDS ${outputs})

  add_library(crisp_${name}_pb STATIC ${CRISP_GEN}/${stem}.pb.cc)
  target_include_directories(crisp_${name}_pb SYSTEM PUBLIC ${CRISP_GEN})
  target_link_libraries(crisp_${name}_pb PUBLIC protobuf::libprotobuf)
  add_dependencies(crisp_${name}_pb crisp_${name}_gen)

  add_library(crisp_${name}_grpc STATIC ${CRISP_GEN}/${stem}.grpc.pb.cc)
  target_link_libraries(crisp_${name}_grpc PUBLIC crisp_${name}_pb gRPC::grpc++_unsecure)
  add_dependencies(crisp_${name}_grpc crisp_${name}_gen)

  foreach(dep ${arg_DEPS})
    target_link_libraries(crisp_${name}_pb PUBLIC crisp_${dep}_pb)
    add_dependencies(crisp_${name}_gen crisp_${dep}_gen)
  endforeach()
  add_library(crisp::${name}_pb ALIAS crisp_${name}_pb)
  add_library(crisp::${name}_grpc ALIAS crisp_${name}_grpc)
endfunction()
